//! Names that the server gives.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use warren_types::ShortString;

/// `prefix` and 128 random bits as 22 characters of URL-safe base64 (`rabbit_guid:binary/2`).
///
/// # Panics
/// If the operating system has no randomness: nothing could be done safely then.
pub(crate) fn generate(prefix: &str) -> ShortString {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system provides randomness");
    let name = format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    ShortString::truncated(name.as_bytes())
}
