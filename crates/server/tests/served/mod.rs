//! A broker with a listener, for tests that reach it both as clients do and from within.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use warren_broker::{Broker, Permissions, Settings};
use warren_server::{Interceptors, Limits, Server, ServerIdentity};
use warren_store::{Options as StoreOptions, Store};
use warren_testkit::SimDisk;

/// A broker within this process.
pub(crate) struct Served {
    pub broker: Arc<Broker>,
    pub address: SocketAddr,
    pub runtime: Runtime,
    stop: watch::Sender<bool>,
    disk: SimDisk,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::on_disk(SimDisk::new(1), change)
    }

    /// What comes up after a power cut at this moment.
    pub(crate) fn after_power_cut(self) -> Self {
        let disk = self.disk.power_cut(2);
        drop(self);
        Self::on_disk(disk, |_| {})
    }

    fn on_disk(disk: SimDisk, change: impl FnOnce(&mut Settings)) -> Self {
        let runtime = Runtime::new().expect("there are threads left");
        let _entered = runtime.enter();
        let mut settings = Settings {
            default_queue_type: None,
            consumer_timeout: None,
            shards: 2,
            memory_limit: 1 << 40,
            disk_free_limit: 0,
            default_vhost: "/".to_owned(),
            default_user: "guest".to_owned(),
            default_password: "guest".to_owned(),
            default_permissions: all(),
            loopback_users: Vec::new(),
            anonymous_user: None,
            node: "rabbit@here".to_owned(),
            event_exchange: Some("events".to_owned()),
            log_exchange: false,
        };
        change(&mut settings);
        let on_failure = Box::new(|failure: &str| panic!("{failure}"));
        let opened = Store::open(Arc::new(disk.clone()), StoreOptions::default(), on_failure, &|_, _| {});
        let (store, recovered) = opened.expect("the disk works");
        let broker = Broker::start(settings, store, recovered).expect("what is stored makes sense");
        let limits = Limits {
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat_s: 60,
            message_len_max: 16 << 20,
            handshake_timeout: Duration::from_secs(10),
            interceptors: Interceptors::default(),
        };
        let [product, version, cluster_name, platform, copyright, information] =
            std::array::from_fn(|_| String::new());
        let identity = ServerIdentity { product, version, cluster_name, platform, copyright, information };
        let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let server = Server::bind(&addresses, 16, Arc::clone(&broker), 100, limits, identity);
        let server = server.expect("there are ports left");
        let address = server.addresses().expect("the system tells")[0];
        let (stop, stopping) = watch::channel(false);
        runtime.spawn(server.run(stopping, Duration::ZERO));
        Self { broker, address, runtime, stop, disk }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

pub(crate) fn all() -> Permissions {
    Permissions::new(".*", ".*", ".*").expect("they are regular")
}
