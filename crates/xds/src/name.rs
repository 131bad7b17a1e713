//! Names of resources.
//!
//! A Listener is what the application writes behind `xds:///`; a route configuration, a Cluster and its endpoints have the
//! name that proxies ask each other for.

use std::fmt;

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The namespace.
    pub namespace: String,
    /// The service.
    pub service: String,
    /// The port; 0 stands for the only one.
    pub port: u16,
}

impl ServicePort {
    /// Reads the name of a Listener: `orders.shop:8080`, `orders.shop.svc.TRUST-DOMAIN:8080`, or `orders` for a service of the
    /// client's own namespace; without a port the service's only one.
    pub fn of_listener(name: &str, home: &str) -> Option<Self> {
        let (host, port) = match name.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (name, 0),
        };
        let mut labels = host.trim_end_matches('.').splitn(3, '.');
        let service = labels.next().filter(|label| !label.is_empty())?;
        let namespace = labels.next().unwrap_or(home);
        if labels.next().is_some_and(|rest| rest != "svc" && !rest.starts_with("svc."))
            || namespace.is_empty()
        {
            return None;
        }
        Some(Self { namespace: namespace.to_owned(), service: service.to_owned(), port })
    }

    /// Reads the name of a route configuration, Cluster or its endpoints: `PORT.SERVICE.NAMESPACE.svc.TRUST-DOMAIN`.
    pub fn of_server_name(name: &str) -> Option<Self> {
        let mut labels = name.splitn(4, '.');
        let port = labels.next()?.parse().ok().filter(|port| *port != 0)?;
        let (service, namespace) = (labels.next()?, labels.next()?);
        let is_ours = labels.next().is_some_and(|rest| rest.starts_with("svc."));
        (is_ours && !service.is_empty() && !namespace.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port,
        })
    }

    /// The name that proxies are asked for.
    pub fn server_name(&self, trust_domain: &str) -> String {
        format!("{}.{}.{}.svc.{trust_domain}", self.port, self.service, self.namespace)
    }

    /// `NAMESPACE/SERVICE`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_service_with_or_without_namespace_domain_and_port() {
        for (name, expected) in [
            ("orders.shop:8080", Some("shop/orders:8080")),
            ("orders.shop.svc.cluster.local:8080", Some("shop/orders:8080")),
            ("orders.shop.svc", Some("shop/orders:0")),
            ("orders", Some("home/orders:0")),
            ("orders:80", Some("home/orders:80")),
            ("orders.shop.example.com:80", None),
            ("orders.shop:0", None),
            ("orders.shop:http", None),
            ("", None),
            (".shop:80", None),
            ("a..svc:80", None),
        ] {
            let read = ServicePort::of_listener(name, "home").map(|port| port.to_string());
            assert_eq!(read.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn the_name_of_a_cluster_is_read_as_it_is_written() {
        let port = ServicePort { namespace: "shop".into(), service: "orders".into(), port: 8080 };
        let name = port.server_name("cluster.local");
        assert_eq!(name, "8080.orders.shop.svc.cluster.local");
        assert_eq!(ServicePort::of_server_name(&name), Some(port));
        for name in [
            "",
            "orders.shop.svc.cluster.local",
            "80.orders.shop",
            "80.orders.shop.cluster.local",
            "0.a.b.svc.c",
        ] {
            assert_eq!(ServicePort::of_server_name(name), None, "{name}");
        }
    }
}
