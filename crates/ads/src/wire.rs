//! Messages of `envoy.service.discovery.v3.AggregatedDiscoveryService`, delta variant, as far as they are used here. Fields
//! that are not here are skipped when read.

use std::collections::HashMap;

use bytes::Bytes;

/// The path of the method that both sides speak.
pub const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The name of the service.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";

/// Who asks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Which proxy, unique among those of a control plane.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What it is a proxy of.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// The program.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its version.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
    /// The revision that was in force where what it uses last came from; a field of our own.
    #[prost(uint64, tag = "1000")]
    pub revision: u64,
}

/// `google.rpc.Status`: why a response was refused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    /// A code of `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// The type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// From the proxy: what it wants and does not want any more, and what it made of a response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaRequest {
    /// Who asks; in the first message of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// The type of everything in this message.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names that are wanted from here on.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names that are not wanted any more.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What the proxy has already, by name; in the first message of a type.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The response that this message is about; empty when it is about none.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why that response was refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Refusal>,
}

/// From the control plane: what has changed of what is wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaResponse {
    /// The revision that was in force when this was made.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// What has come or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The type of everything in this message.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What an answer names.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// What is wanted and does not exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// A resource.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// The version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The content.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// The name.
    #[prost(string, tag = "3")]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn fields_that_are_not_known_are_skipped() {
        // A request of another client: node { id: "n", metadata: {} (3) }, type_url, a locator (8).
        let mut bytes = vec![0x0a, 0x05, 0x0a, 0x01, b'n', 0x1a, 0x00];
        bytes.extend([0x12, 0x01, b't', 0x42, 0x02, 0x0a, 0x00]);
        let request = DeltaRequest::decode(&*bytes).unwrap();
        assert_eq!(request.node.map(|node| node.id), Some("n".to_owned()));
        assert_eq!(request.type_url, "t");
    }

    #[test]
    fn fields_have_the_numbers_of_the_protocol() {
        let response = DeltaResponse {
            system_version_info: "1".into(),
            resources: vec![Resource { version: "2".into(), resource: None, name: "3".into() }],
            type_url: "4".into(),
            nonce: "5".into(),
            removed_resources: vec!["6".into()],
        };
        let expected = b"\x0a\x011\x12\x06\x0a\x012\x1a\x013\x22\x014\x2a\x015\x32\x016";
        assert_eq!(response.encode_to_vec(), expected);
    }
}
