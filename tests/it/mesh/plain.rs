//! Plain text to workloads that still take it.

use super::namespaces::Lab;
use rhumb_testkit::netns::Machine;
use rhumb_testkit::process::{Finished, finish};
use rhumb_testkit::wait;
use std::process::Command;

/// An application that speaks first, and tells how often it was called.
const GREETER: &str = "import socketserver
class Greet(socketserver.StreamRequestHandler):
    def handle(self):
        print('visited', flush=True)
        self.wfile.write(b'220 greet-4711\\r\\n')
        self.rfile.readline()
socketserver.ThreadingTCPServer(('127.0.0.1', 2525), Greet).serve_forever()";

/// What the application says first; nothing when the connection ends before.
const LISTEN: &str = "import socket,sys
s = socket.create_connection((sys.argv[1], 2525), 60)
s.settimeout(60)
try: print(s.recv(99).decode().strip())
except ConnectionError: print()";

fn listen(from: &Machine, address: &str) -> Finished {
    let mut command = from.command("python3");
    command.args(["-c", LISTEN, address]);
    finish(command)
}

#[test]
fn plain_text_to_a_port_that_does_not_say_what_it_speaks_asks_who_may_call() {
    let mut lab = Lab::new(&[("open", Some("port: 2525")), ("guarded", Some("port: 2525"))]);
    lab.world.add(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec: {mtls: permissive}\n---\n\
         apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: who-may-call}\n\
         spec: {targetRefs: [{kind: Service, name: guarded}], policies: {authorization: {rules: [\
         {when: \"source.serviceAccount == 'web'\"}]}}}",
    );
    for name in ["open", "guarded"] {
        lab.intercept(name);
        let mut greeter = Command::new("python3");
        greeter.args(["-c", GREETER]);
        lab.start_sidecar(name, &["--service", name, "--port", "2525", "--capture"], &greeter);
    }
    let visits = |lab: &Lab, at: usize| lab.programs[at].log().matches("visited").count();
    let stranger = lab.network.machine("stranger");
    let address = |name: &str| lab.machine(name).address().to_string();
    lab.until("plain text where nobody objects", "220 greet-4711", || listen(&stranger, &address("open")));
    // The application is there, and hears of nobody but who calls it on its own machine.
    lab.until("the guarded application", "220 greet-4711", || listen(lab.machine("guarded"), "127.0.0.1"));
    let before = visits(&lab, 1);
    let done = listen(&stranger, &address("guarded"));
    assert!(done.code == Some(0) && done.output.trim().is_empty(), "{done:?}\n{}", lab.logs());
    lab.until("the guarded application again", "220 greet-4711", || {
        listen(lab.machine("guarded"), "127.0.0.1")
    });
    wait::until("the visit is told", || (visits(&lab, 1) > before).then_some(()));
    assert_eq!(visits(&lab, 1), before + 1, "{}", lab.logs());
}
