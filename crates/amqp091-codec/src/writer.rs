use warren_types::ShortString;

/// Appends up to eight bits as one octet, the first one lowest.
pub(crate) fn put_bits<const N: usize>(out: &mut Vec<u8>, bits: [bool; N]) {
    const { assert!(N <= 8, "bits of more than one octet") };
    let octet = bits.iter().enumerate().fold(0, |octet, (at, bit)| octet | u8::from(*bit) << at);
    out.push(octet);
}

/// Appends a short string. Callers keep to its longest length; anything longer is a bug, and is cut.
pub(crate) fn put_short_string(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= ShortString::LEN_MAX, "{} bytes for a short string", bytes.len());
    let bytes = &bytes[..bytes.len().min(ShortString::LEN_MAX)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Appends a long string. It cannot be longer than its 32-bit length says; anything longer is cut.
pub(crate) fn put_long_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&bytes[..len as usize]);
}

/// Appends what `content` writes behind its length in 32 bits.
pub(crate) fn put_with_length(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    let len = out.len() - start - 4;
    debug_assert!(u32::try_from(len).is_ok(), "{len} bytes do not fit a 32-bit length");
    out[start..start + 4].copy_from_slice(&(len as u32).to_be_bytes());
}
