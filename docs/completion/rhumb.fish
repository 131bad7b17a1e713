# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_rhumb_global_optspecs
    string join \n admin-ca= admin-name= admin-cert= admin-key= h/help V/version
end

function __fish_rhumb_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_rhumb_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_rhumb_using_subcommand
    set -l cmd (__fish_rhumb_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c rhumb -n "__fish_rhumb_needs_command" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_needs_command" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_needs_command" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_needs_command" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_needs_command" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_needs_command" -s V -l version -d 'Print version'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "run" -d 'Run the gateway'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "check" -d 'Check a configuration without running it'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "adapt" -d 'Print the documents that the short form stands for'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "schema" -d 'Print the JSON Schema of configurations'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "explain" -d 'Explain what happens to a request'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "status" -d 'Show the state of a running process'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "endpoints" -d 'Show the endpoints of a running process'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "apis" -d 'Show which APIs there are, as traffic tells'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "top" -d 'Show who has the most requests, failures or latency'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "edges" -d 'Show who calls whom'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "tap" -d 'Show requests as they end'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "trace" -d 'Show one request with every step'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "try" -d 'Send a request through a running process, and show what became of it'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "bundle" -d 'Write what a running process knows into one file, for a support case'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "drain" -d 'Have a running process finish what it has, and end'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "sidecar" -d 'Run an application with its sidecar'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "intercept" -d 'Bring this machine\'s or container\'s traffic to its sidecar'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "control" -d 'Run a control plane'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "apply" -d 'Put documents into a control plane'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "get" -d 'Show documents of a control plane, or its proxies'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "delete" -d 'Take a document out of a control plane'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "history" -d 'List the revisions of a control plane'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "diff" -d 'Show what differs between two revisions'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "rollback" -d 'Go back to an earlier revision'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "issuer" -d 'Run the certificate authority of a mesh'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "token" -d 'Make join tokens, with which workloads join the mesh, and tokens for the admin API'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "cert" -d 'Look at the certificates of a mesh, and change them'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "learn" -d 'Propose rules for who may call what, from what was called'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "xds-bootstrap" -d 'Print the xDS bootstrap of a gRPC client'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "xds-agent" -d 'Keep a gRPC client without a proxy in the mesh'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "demo" -d 'Run a gateway with sample backends, to look around'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "version" -d 'Print the version'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "completion" -d 'Print a completion script for a shell'
complete -c rhumb -n "__fish_rhumb_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -s c -l config -d 'Configuration: a file, or a directory of *.yaml, *.yml and *.json files. Default: rhumb.yaml, then the directory rhumb, then /etc/rhumb' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l admin-token-file -d 'File with the token that opens the admin listener; written when it does not exist. Default: a file of this user\'s runtime directory, found by the other verbs by themselves' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l admin-directory -d 'Directory of named tokens and of the audit log. Default: that of the service\'s state (systemd), or that of the token' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l pid-file -d 'File that tells the id of the process that serves; written when it is ready, by its successor too' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l control-plane -d 'Be the control plane of a mesh too, at this address: sidecars join it with tokens, the files are its documents' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l directory -d 'Directory of that control plane: documents, certificate authority, the identity of the gateway' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l control -d 'Control plane that documents come from too, as HOST:PORT; several to fail over to' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l gateway -d 'Gateway of the control plane that this process is, as NAMESPACE/NAME. Its identity is the service account of that name' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l join-token-file -d 'File with the join token for the first certificate' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l state -d 'Directory of key, certificate and the last documents' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l trust-domain -d 'Trust domain of the mesh. Default: that of the certificate it has, else that of the join token' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -l partial -d 'Serve what is right: a document with mistakes refuses its own traffic (500), the others work. Default: a configuration with mistakes is not taken over at all'
complete -c rhumb -n "__fish_rhumb_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -s c -l config -d 'A configuration: a file or a directory. Default: rhumb.yaml, then the directory rhumb, then /etc/rhumb' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -l format -d 'How mistakes are printed' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand adapt" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand adapt" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand adapt" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand adapt" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand adapt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand schema" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand schema" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand schema" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand schema" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -s H -l header -d 'A header of the request; Host takes the place of the URL\'s host' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -l client -d 'Address of the client' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -s c -l config -d 'Configuration: a file, or a directory of *.yaml, *.yml and *.json files. Default: rhumb.yaml, then the directory rhumb, then /etc/rhumb' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l watch -d 'Print it again and again, every second or as often as is said' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -l check -d 'Only what is wrong; ends with 1 when something does not work'
complete -c rhumb -n "__fish_rhumb_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l watch -d 'Print it again and again, every second or as often as is said' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand endpoints" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l openapi -d 'Compare with this OpenAPI file, in YAML or JSON; may be repeated' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l unused-days -d 'What was not seen for so many days is unused' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -s o -l format -d 'How it is printed. Default: text; of `--export-openapi` yaml' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -l export-openapi -d 'Print what was seen as OpenAPI 3.1, one document per host'
complete -c rhumb -n "__fish_rhumb_using_subcommand apis" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l sort -d 'What comes first' -r -f -a "requests\t'The most requests'
errors\t'The most failures'
p99\t'The slowest'
name\t'The name'"
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l limit -d 'How many' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l window -d 'Over how long' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l watch -d 'Print it again and again, every second or as often as is said' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l watch -d 'Print it again and again, every second or as often as is said' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand edges" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l limit -d 'How many at most' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l rate -d 'How many in a second' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l admin -d 'Admin listener of a running process; several are asked at the same time' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l admin-token-file -d 'File with a token of an editor or an admin. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l seconds -d 'For how long' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand tap" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l limit -d 'How many, of each process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l admin -d 'Admin listener of a running process; several are asked at the same time' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l admin-token-file -d 'File with a token of an editor or an admin. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l seconds -d 'For how long' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -s H -l header -d 'A header of the request; Host takes the place of the URL\'s host' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -s d -l data -d 'Content of the request' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -l admin-token-file -d 'File with a token of an editor or an admin. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand try" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l file -d 'The file, which must not be there yet; `-` is standard output. Default: rhumb-ADDRESS-TIME.tar.gz' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l admin-token-file -d 'File with a token of an admin. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand bundle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l admin -d 'Admin listener of the running process' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -s o -l format -d 'How it is printed' -r -f -a "text\t'For people'
json\t'For programs'
yaml\t'For both'"
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l watch -d 'Print it again and again, every second or as often as is said' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -l wait -d 'Return when the process has ended'
complete -c rhumb -n "__fish_rhumb_using_subcommand drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -s c -l config -d 'Configuration: a file, or a directory of *.yaml, *.yml and *.json files. Default: rhumb.yaml, then the directory rhumb, then /etc/rhumb' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l service -d 'Service that the application serves' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l port -d 'Port that the application listens on, with the service\'s own when it is another, and with what is spoken there (http, h2c, grpc, tcp, …) when that is not to be found out: 9000, 80=9000, 80=9000:http' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l upstream -d 'Service that the application calls at an address of its own machine: payments=127.0.0.1:7001; with the service\'s port when it has several: payments:8080=127.0.0.1:7001' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l namespace -d 'Namespace of the workload' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l workload -d 'Name of the workload. Default: that of the service, else of the program' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l service-account -d 'Service account of the workload: who it is to others' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l address -d 'Address that others reach the workload at. Default: that of the first interface' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l tunnel -d 'Where connections of the mesh are taken. Default: port 15008 of every address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l certificate -d 'Certificate of the workload with its chain, PEM' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l key -d 'Key of the certificate, PEM' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l bundle -d 'Roots that are trusted, PEM (`rhumb cert bundle` prints them)' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l control -d 'Control plane of the mesh, as HOST:PORT; several to fail over to. Documents and the certificate come from it' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l join-token-file -d 'File with the join token for the first certificate' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l service-account-token -d 'Instead of a join token, in a pod: file of the token of its Kubernetes service account, made for the audience that the control plane wants. Needs --bundle' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l state -d 'Directory of key, certificate and the last documents' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l admin-token-file -d 'File with the token that opens the admin listener; written when it does not exist' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l admin-directory -d 'Directory of named tokens and of the audit log. Default: that of the service\'s state (systemd), or that of the token' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -l capture -d 'Take the connections that `rhumb intercept` brings, and answer the questions for names'
complete -c rhumb -n "__fish_rhumb_using_subcommand sidecar" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l outbound-port -d 'Port of the sidecar for connections that leave' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l inbound-port -d 'Port of the sidecar for connections that arrive' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l dns-port -d 'Port of the sidecar for questions for names' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l include-outbound-ports -d 'Capture connections to these ports only' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l exclude-outbound-ports -d 'Leave connections to these ports alone' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l include-cidrs -d 'Capture connections to these destinations only; virtual addresses of mesh names always are' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l exclude-cidrs -d 'Leave connections to these destinations alone' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l include-inbound-ports -d 'Capture connections that arrive at these ports only' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l exclude-inbound-ports -d 'Leave connections that arrive at these ports alone. Default: 22' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l include-users -d 'Capture what programs of these users send only (numbers or names)' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l exclude-users -d 'Leave what programs of these users send alone: the sidecar\'s user, when it has one of its own' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l dns-servers -d 'Name servers whose questions are captured. Default: those of /etc/resolv.conf' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l mark -d 'Mark of the sidecar\'s own sockets' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l dry-run -d 'Print the rules and change nothing'
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l remove -d 'Take all rules away; no error when there are none'
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l no-outbound -d 'Do not capture connections that leave'
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l no-inbound -d 'Do not capture connections that arrive'
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -l no-dns -d 'Do not capture questions for names'
complete -c rhumb -n "__fish_rhumb_using_subcommand intercept" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l directory -d 'Directory of the documents and their history; made when it is not there. Not used with a store' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l listen -d 'Where proxies connect' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l authority -d 'Directory of the certificate authority; made when it is not there. Not used with a store' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l trust-domain -d 'Trust domain of the mesh. Default: what the Mesh document says, or what the certificate authority is of, or cluster.local' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin -d 'Admin listener: where people and tools ask. Default: what --config says, or 127.0.0.1:9901' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -s c -l config -d 'File with a ProxyConfig that says who may ask the admin listener (`admin`: TLS, certificates, an identity provider); followed as it changes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin-token-file -d 'File with the token that opens the admin listener; written when it does not exist. Default: a file of this user\'s runtime directory, found by the other verbs by themselves' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin-directory -d 'Directory of named tokens and of the audit log. Default: `admin` beside the documents' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l xds -d 'Where gRPC clients without a proxy connect in plain text: an address of this machine only. Others use `rhumb xds-agent`. Default: nowhere' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l kubernetes-issuer -d 'Who signs the tokens of a Kubernetes cluster whose service accounts may join: its --service-account-issuer' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l kubernetes-keys -d 'Keys of the cluster: a file with what it has at /openid/v1/jwks, or the URL of that. Default: where the issuer says' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l kubernetes-ca -d 'PEM file of the roots of the server of the keys. Default: those of the pod\'s service account, else those of the system' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l kubernetes-token -d 'File of a token to show to the server of the keys. Default: that of the pod\'s service account, with its own roots only' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l kubernetes-audience -d 'For whom its tokens must be' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand control" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l wait -d 'Return when every proxy that the change concerns runs it, and name those that do not. With a time, wait that long at most' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -s m -l message -d 'Why, for the history' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l if-revision -d 'Only if this revision is in force' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l admin -d 'Admin listener of the control plane' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l roll-back -d 'Go back to the revision before when a proxy refuses this one; waits'
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -l dry-run -d 'Only show what would change'
complete -c rhumb -n "__fish_rhumb_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -s n -l namespace -d 'Namespace' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -s o -l format -d 'How it is printed' -r -f -a "text\t'A list'
yaml\t'Documents as YAML'
json\t'Documents as JSON'"
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -l admin -d 'Admin listener of the control plane' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -s n -l namespace -d 'Its namespace' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l wait -d 'Return when every proxy that the change concerns runs it, and name those that do not. With a time, wait that long at most' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -s m -l message -d 'Why, for the history' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l if-revision -d 'Only if this revision is in force' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l admin -d 'Admin listener of the control plane' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand delete" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l limit -d 'How many' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l admin -d 'Admin listener of the control plane' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand history" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -l admin -d 'Admin listener of the control plane' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l wait -d 'Return when every proxy that the change concerns runs it, and name those that do not. With a time, wait that long at most' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -s m -l message -d 'Why, for the history' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l if-revision -d 'Only if this revision is in force' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l admin -d 'Admin listener of the control plane' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l admin-token-file -d 'File with its token. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l listen -d 'Where members ask' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -s c -l config -d 'Configuration whose Mesh document says trust domain and lifetimes, where no option does' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l trust-domain -d 'Trust domain. Default: cluster.local' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l authority -d 'Directory of the certificate authority, made where there is none' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l leaf-lifetime -d 'How long an SVID lives. Default: 24h' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l intermediate-lifetime -d 'How long the intermediate lives; at least four times as long as an SVID. Default: 720h' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l root-lifetime -d 'How long the root lives; at least twice as long as the intermediate. Default: 8760h' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l certificate -d 'PEM file of an intermediate that somebody else makes, followed by its chain' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l key -d 'PEM file of its key' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l bundle -d 'PEM file of the roots that members trust' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l kubernetes-issuer -d 'Who signs the tokens of a Kubernetes cluster whose service accounts may join: its --service-account-issuer' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l kubernetes-keys -d 'Keys of the cluster: a file with what it has at /openid/v1/jwks, or the URL of that. Default: where the issuer says' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l kubernetes-ca -d 'PEM file of the roots of the server of the keys. Default: those of the pod\'s service account, else those of the system' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l kubernetes-token -d 'File of a token to show to the server of the keys. Default: that of the pod\'s service account, with its own roots only' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l kubernetes-audience -d 'For whom its tokens must be' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l metrics -d 'Where metrics are, at /metrics. Default: nowhere' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand issuer" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -f -a "create" -d 'Make a join token and print it'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -f -a "admin" -d 'Tokens for the admin API of a running process'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and not __fish_seen_subcommand_from create admin help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l namespace -d 'Namespace of the workload' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l service-account -d 'Service account of the workload' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l life -d 'How long it is good; at most as long as an SVID lives' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l authority -d 'Directory of the certificate authority' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -f -a "create" -d 'Make a token and print it; it is not shown again'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -f -a "list" -d 'List tokens'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -f -a "revoke" -d 'Take a token back; sessions that were begun with it end'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from admin" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "create" -d 'Make a join token and print it'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "admin" -d 'Tokens for the admin API of a running process'
complete -c rhumb -n "__fish_rhumb_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "show" -d 'Tell what is in the files of a proxy, or in a file of certificates'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "authority" -d 'Tell which roots there are, and what happens next'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "bundle" -d 'Print the roots that members trust, in PEM'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "rotate" -d 'Begin a rotation of the root; it ends by itself, after two lives of an SVID'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "revoke" -d 'Void what an identity has been given until now, or one certificate'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "issue" -d 'Issue an SVID into files, for a proxy that has no control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and not __fish_seen_subcommand_from show authority bundle rotate revoke issue help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from show" -l format -d 'How it is written' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from show" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from show" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from show" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from show" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l authority -d 'Directory of the certificate authority' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l format -d 'How it is written' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from authority" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l authority -d 'Directory of the certificate authority' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from bundle" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l authority -d 'Directory of the certificate authority' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l serial -d 'One certificate, by its serial number in hexadecimal' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l authority -d 'Directory of the certificate authority' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l namespace -d 'Namespace of the workload' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l service-account -d 'Service account of the workload' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l out -d 'Directory for tls.crt, tls.key and ca.crt' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l trust-domain -d 'Trust domain, where the authority is made by this' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l authority -d 'Directory of the certificate authority' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l store -d 'Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and the certificate authority' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l store-file -d 'File with the URL of that database, so that the password is in no list of processes' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l seal-key-file -d 'Key with which everything in that database is sealed: the same file for each control plane. The first one makes it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from issue" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "show" -d 'Tell what is in the files of a proxy, or in a file of certificates'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "authority" -d 'Tell which roots there are, and what happens next'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "bundle" -d 'Print the roots that members trust, in PEM'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "rotate" -d 'Begin a rotation of the root; it ends by itself, after two lives of an SVID'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'Void what an identity has been given until now, or one certificate'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "issue" -d 'Issue an SVID into files, for a proxy that has no control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand cert; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l admin -d 'Admin listener of a service\'s proxy; may be repeated' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l admin-token-file -d 'File with the token that opens them. Default: found by itself' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -l enforce -d 'Rules that are obeyed, instead of those in shadow mode'
complete -c rhumb -n "__fish_rhumb_using_subcommand learn" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l server -d 'Where the mesh is asked for: an agent or control plane of this machine' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l certificates -d 'Directory of the client\'s certificate: tls.crt, tls.key and ca.crt. Without it only services that take plain text are reached' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l namespace -d 'Namespace of the client: where services without a namespace are looked for' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l node -d 'What the client is called, in `rhumb get proxies`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-bootstrap" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l control -d 'Control plane of the mesh, as HOST:PORT; several to fail over to' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l join-token-file -d 'File with the join token for the first certificate' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l certificates -d 'Directory that tls.crt, tls.key and ca.crt are written to; made when it is not there' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l state -d 'Directory where key and certificate are kept over restarts' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l listen -d 'Where gRPC clients connect: an address of this machine' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l trust-domain -d 'Trust domain of the mesh' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand xds-agent" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l port -d 'Port of the gateway; 0 takes a free one. Default: 8080, or a free one when it is in use' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l admin -d 'Admin listener' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -f -a "mesh" -d 'Run a gateway and three services that call each other through a mesh'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -f -a "service" -d 'What the services of the demonstration are'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -f -a "call" -d 'Call a URL once, print status and content, and end with 0 when it was 200'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and not __fish_seen_subcommand_from mesh service call help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l log-level -d 'What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l log-format -d 'How messages are written to standard error' -r -f -a "text\t'One line of text'
json\t'One JSON object per line'"
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l check -d 'Verify that calls cross all of it and that strangers are refused, print one line, and end; exit code 1 when not'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -l loopback -d 'Run side by side on this machine, also where namespaces can be had'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from mesh" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from service" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from service" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from service" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from service" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from service" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from call" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from call" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from call" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from call" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from call" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "mesh" -d 'Run a gateway and three services that call each other through a mesh'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "service" -d 'What the services of the demonstration are'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "call" -d 'Call a URL once, print status and content, and end with 0 when it was 200'
complete -c rhumb -n "__fish_rhumb_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand version" -l format -d 'How it is written' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c rhumb -n "__fish_rhumb_using_subcommand version" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand version" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand version" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand version" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rhumb -n "__fish_rhumb_using_subcommand completion" -l admin-ca -d 'File with the CA that signs the certificate of the admin listener' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand completion" -l admin-name -d 'Name in that certificate. Default: the address' -r
complete -c rhumb -n "__fish_rhumb_using_subcommand completion" -l admin-cert -d 'File with a certificate to show it' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand completion" -l admin-key -d 'File with the key of the certificate to show' -r -F
complete -c rhumb -n "__fish_rhumb_using_subcommand completion" -s h -l help -d 'Print help'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "run" -d 'Run the gateway'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "check" -d 'Check a configuration without running it'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "adapt" -d 'Print the documents that the short form stands for'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "schema" -d 'Print the JSON Schema of configurations'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "explain" -d 'Explain what happens to a request'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "status" -d 'Show the state of a running process'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "endpoints" -d 'Show the endpoints of a running process'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "apis" -d 'Show which APIs there are, as traffic tells'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "top" -d 'Show who has the most requests, failures or latency'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "edges" -d 'Show who calls whom'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "tap" -d 'Show requests as they end'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "trace" -d 'Show one request with every step'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "try" -d 'Send a request through a running process, and show what became of it'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "bundle" -d 'Write what a running process knows into one file, for a support case'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "drain" -d 'Have a running process finish what it has, and end'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "sidecar" -d 'Run an application with its sidecar'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "intercept" -d 'Bring this machine\'s or container\'s traffic to its sidecar'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "control" -d 'Run a control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "apply" -d 'Put documents into a control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "get" -d 'Show documents of a control plane, or its proxies'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "delete" -d 'Take a document out of a control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "history" -d 'List the revisions of a control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "diff" -d 'Show what differs between two revisions'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "rollback" -d 'Go back to an earlier revision'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "issuer" -d 'Run the certificate authority of a mesh'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "token" -d 'Make join tokens, with which workloads join the mesh, and tokens for the admin API'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "cert" -d 'Look at the certificates of a mesh, and change them'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "learn" -d 'Propose rules for who may call what, from what was called'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "xds-bootstrap" -d 'Print the xDS bootstrap of a gRPC client'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "xds-agent" -d 'Keep a gRPC client without a proxy in the mesh'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "demo" -d 'Run a gateway with sample backends, to look around'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "version" -d 'Print the version'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "completion" -d 'Print a completion script for a shell'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and not __fish_seen_subcommand_from run check adapt schema explain status endpoints apis top edges tap trace try bundle drain sidecar intercept control apply get delete history diff rollback issuer token cert learn xds-bootstrap xds-agent demo version completion help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "create" -d 'Make a join token and print it'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "admin" -d 'Tokens for the admin API of a running process'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from cert" -f -a "show" -d 'Tell what is in the files of a proxy, or in a file of certificates'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from cert" -f -a "authority" -d 'Tell which roots there are, and what happens next'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from cert" -f -a "bundle" -d 'Print the roots that members trust, in PEM'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from cert" -f -a "rotate" -d 'Begin a rotation of the root; it ends by itself, after two lives of an SVID'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from cert" -f -a "revoke" -d 'Void what an identity has been given until now, or one certificate'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from cert" -f -a "issue" -d 'Issue an SVID into files, for a proxy that has no control plane'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from demo" -f -a "mesh" -d 'Run a gateway and three services that call each other through a mesh'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from demo" -f -a "service" -d 'What the services of the demonstration are'
complete -c rhumb -n "__fish_rhumb_using_subcommand help; and __fish_seen_subcommand_from demo" -f -a "call" -d 'Call a URL once, print status and content, and end with 0 when it was 200'
