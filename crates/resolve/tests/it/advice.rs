//! What a control plane says beside documents.

use crate::read::{AROUND, docs};
use rhumb_base::virtual_address::VirtualAddress;
use rhumb_model::Diag;
use rhumb_plan::{Backend, Plan};
use rhumb_resolve::{Advice, Memory};

const DOCUMENTS: &str = "
apiVersion: v1
kind: Service
metadata: { name: orders }
spec: { ports: [{ name: http, port: 80, targetPort: 9000, appProtocol: http }] }
---
apiVersion: v1
kind: Service
metadata: { name: stock }
spec: { ports: [{ port: 80, targetPort: 9000, appProtocol: http }] }
---
apiVersion: rhumb.dev/v1alpha1
kind: Workload
metadata: { name: orders-1 }
spec: { address: 10.0.0.5, services: [orders] }
---
apiVersion: rhumb.dev/v1alpha1
kind: Sidecar
metadata: { name: web }
spec: { capture: {}, identity: { control: { addresses: ['10.0.0.1:15012'] } } }
";

fn resolved(memory: &mut Memory, advice: Advice, previous: Option<&Plan>) -> Plan {
    memory.advise(advice);
    let resolved = memory.resolve(&docs(DOCUMENTS).docs, previous, &AROUND);
    let told: Vec<String> = resolved.diagnostics.iter().map(ToString::to_string).collect();
    assert!(!resolved.diagnostics.iter().any(Diag::is_error), "{told:#?}");
    resolved.plan
}

fn called(plan: &Plan) -> Vec<&str> {
    let mesh = plan.mesh.as_ref().expect("a mesh");
    let mut called: Vec<&str> = mesh.outbound.keys().map(|name| &**name).collect();
    called.sort_unstable();
    called
}

fn orders(plan: &Plan) -> &Backend {
    let found = plan.backends.iter().find(|backend| backend.name.as_str() == "default/orders:80");
    found.expect("the backend of the service")
}

#[test]
fn a_captured_workload_calls_what_is_here_as_a_whole_and_endpoints_may_come_apart() {
    let mut memory = Memory::default();
    let service = || "default/orders".to_owned();
    let address = VirtualAddress::of_number(7).expect("a number");
    let advice = Advice {
        called: Some([service()].into()),
        addresses: vec![(service(), address)],
        placed: [service()].into(),
    };
    let first = resolved(&mut memory, advice, None);
    assert_eq!(called(&first), ["default/orders:80"]);
    let mesh = first.mesh.as_ref().expect("a mesh");
    let names = &mesh.capture.as_ref().expect("a capture").names;
    assert!(names.iter().any(|(name, v4, _)| &**name == "orders.default" && *v4 == Some(address.v4())));
    assert!(!names.iter().any(|(name, ..)| name.starts_with("stock")));
    let placed = orders(&first).mesh.as_ref().and_then(|way| way.placed.as_ref()).expect("a place");
    assert_eq!((&*placed.service, &*placed.port, placed.number), ("default/orders", "http", 80));
    // The Workload that documents know of is none of its endpoints, and nobody is expected there yet.
    assert_eq!(orders(&first).endpoints.load().members().len(), 0);
    assert!(orders(&first).mesh.as_ref().is_some_and(|way| way.expected.ids().is_empty()));

    let second = resolved(&mut memory, Advice::default(), Some(&first));
    assert_eq!(called(&second), ["default/orders:80", "default/stock:80"]);
    assert_eq!(orders(&second).endpoints.load().members().len(), 1);
    assert!(orders(&second).mesh.as_ref().is_some_and(|way| way.placed.is_none()));
}
