"""Wrong settings of the cluster, keys and backups."""

from tests.infra.wrong.base import BUCKET, CERTIFICATE, NOBODY, PUBLIC_KEY, Wrong, bucket, second_place

WRONG = [
    # The cluster
    Wrong("bundle of nobody", f"cluster: {{bundle: {NOBODY}}}", "cluster.bundle", "~nosuchuser", "whole path"),
    Wrong("bundle is a file", "cluster: {bundle: /dev/null}", "cluster.bundle", "/dev/null", "folder"),
    Wrong(
        "variable of a setting",
        "cluster: {variables: {cluster_pod_subnet: 10.9.0.0/16}}",
        "cluster.variables.cluster_pod_subnet",
        "10.9.0.0/16",
        "Set that",
    ),
    Wrong("variable with a hyphen", "cluster: {variables: {my-port: 1}}", "cluster.variables.my-port", "1", "letters"),
    # Keys
    Wrong("key file missing", "access: {publicKeyFile: gone.pub}", "access.publicKeyFile", '"gone.pub"', "ssh-keygen"),
    Wrong(
        "key file is private", "access: {publicKeyFile: private}", "access.publicKeyFile", '"private"', "ends in .pub"
    ),
    Wrong("key file is no key", "access: {publicKeyFile: text}", "access.publicKeyFile", '"text"', "ssh-ed25519"),
    Wrong("key file is a folder", "access: {publicKeyFile: .}", "access.publicKeyFile", '"."', "ending in .pub"),
    Wrong("key is no key", "access: {publicKey: hello}", "access.publicKey", '"hello"', "ssh-ed25519"),
    Wrong("key of nobody", f"access: {{publicKeyFile: {NOBODY}}}", "access.publicKeyFile", "~nosuchuser", "~/"),
    Wrong(
        "key is a device", "access: {publicKeyFile: /dev/zero}", "access.publicKeyFile", "/dev/zero", "ending in .pub"
    ),
    Wrong(
        "key file in a file", "access: {publicKeyFile: text/x.pub}", "access.publicKeyFile", "text/x", "ending in .pub"
    ),
    Wrong("key file of two", "access: {publicKeyFile: two.pub}", "access.publicKeyFile", '"two.pub"', "Keep one"),
    Wrong(
        "key file is PuTTY's", "access: {publicKeyFile: putty.pub}", "access.publicKeyFile", "putty", "ssh-keygen -i"
    ),
    Wrong(
        "key file in UTF-16", "access: {publicKeyFile: utf16.pub}", "access.publicKeyFile", "utf16", "ending in .pub"
    ),
    Wrong("key file is large", "access: {publicKeyFile: large.pub}", "access.publicKeyFile", "large", "ending in .pub"),
    Wrong("key file is empty", "access: {publicKeyFile: empty.pub}", "access.publicKeyFile", "empty", "ssh-ed25519"),
    Wrong("two keys", f'access: {{publicKey: "{PUBLIC_KEY}\\n{PUBLIC_KEY}"}}', "access.publicKey", "ssh", "Keep one"),
    Wrong(
        "two keys in a line",
        f'access: {{publicKey: "{PUBLIC_KEY} {PUBLIC_KEY}"}}',
        "access.publicKey",
        "ssh",
        "Keep one",
    ),
    Wrong("two lines", f'access: {{publicKey: "{PUBLIC_KEY}\\nhello"}}', "access.publicKey", "ssh", "Keep the line"),
    Wrong("certificate", f'access: {{publicKey: "{CERTIFICATE}"}}', "access.publicKey", "cert", "ssh-keygen"),
    Wrong("DSA", 'access: {publicKey: "ssh-dss AAAAB3NzaC1kc3MAAACB"}', "access.publicKey", "ssh-dss", "ssh-keygen"),
    Wrong("secret missing", f"access: {{publicKey: {PUBLIC_KEY}}}", "privateKey", "(not set)", "config set --secret"),
    Wrong("secret without use", "privateKey: abc", "privateKey", "[secret]", "access.publicKey"),
    Wrong(
        "secret is no key",
        f"{{access: {{publicKey: {PUBLIC_KEY}}}, privateKey: abc}}",
        "privateKey",
        "[secret]",
        "ssh-keygen",
    ),
    # Backups
    Wrong("second place is none", second_place("{}"), "platform.backup.copyTo", "{}", "either s3 or volume"),
    Wrong(
        "two second places",
        second_place(f"{{volume: data, s3: {BUCKET}}}"),
        "platform.backup.copyTo",
        "{",
        "either s3 or volume",
    ),
    Wrong("bucket missing", bucket("bucket", ""), "platform.backup.copyTo.s3.bucket", "(not set)", "Add `bucket`"),
    Wrong(
        "endpoint without scheme",
        bucket("endpoint", "s3.example.org"),
        "platform.backup.copyTo.s3.endpoint",
        '"s3.example.org"',
        "https://s3.example.org",
    ),
    Wrong(
        "endpoint with a bucket",
        bucket("endpoint", "https://s3.example.org/lab"),
        "platform.backup.copyTo.s3.endpoint",
        '/lab"',
        "setting of its own",
    ),
    Wrong(
        "endpoint with a login",
        bucket("endpoint", "https://a:b@s3.example.org"),
        "platform.backup.copyTo.s3.endpoint",
        's3.example.org"',
        "backupSecretKey",
    ),
    Wrong(
        "endpoint with a bad port",
        bucket("endpoint", "https://s3.example.org:99999"),
        "platform.backup.copyTo.s3.endpoint",
        '99999"',
        "https://s3.example.org",
    ),
    Wrong(
        "endpoint on loopback",
        bucket("endpoint", "http://127.0.0.1:8333"),
        "platform.backup.copyTo.s3.endpoint",
        '8333"',
        "nodes reach",
    ),
    Wrong(
        "endpoint is the own store",
        bucket("endpoint", "http://artifacts.platform:8333"),
        "platform.backup.copyTo.s3.endpoint",
        '8333"',
        "another one",
    ),
    Wrong("bucket is a URL", bucket("bucket", "s3://lab"), "platform.backup.copyTo.s3.bucket", '"s3://lab"', "prefix"),
    Wrong("bucket in upper case", bucket("bucket", "Lab"), "platform.backup.copyTo.s3.bucket", '"Lab"', "lower case"),
    Wrong("prefix goes up", bucket("prefix", "../lab"), "platform.backup.copyTo.s3.prefix", '"../lab"', "course/dev"),
    Wrong(
        "prefix ends with a slash", bucket("prefix", "lab/"), "platform.backup.copyTo.s3.prefix", '"lab/"', "course/dev"
    ),
    Wrong(
        "backup's secret missing",
        second_place(f"{{s3: {BUCKET}}}"),
        "backupSecretKey",
        "(not set)",
        "config set --secret",
    ),
    Wrong("backup's secret without use", "backupSecretKey: abc", "backupSecretKey", "[secret]", "remove the key"),
    Wrong("backup's volume misspelt", second_place("{volume: dta}"), "platform.backup.copyTo.volume", '"dta"', "data"),
    Wrong(
        "backup's volume missing",
        second_place("{volume: elsewhere}"),
        "platform.backup.copyTo.volume",
        '"elsewhere"',
        "holds: backups",
    ),
    Wrong(
        "backup's volume is another's",
        second_place("{volume: data}"),
        "platform.backup.copyTo.volume",
        '"data"',
        "storage.volumes.data.holds",
    ),
    Wrong(
        "backups that nobody copies",
        "storage: {volumes: {data: {holds: backups}}}",
        "storage.volumes.data.holds",
        '"backups"',
        "volume: data",
    ),
    Wrong(
        "backups beside the stores",
        second_place("{volume: data}", "data: {holds: backups}, s: {sizeGb: 1, attachTo: worker-0, holds: stores}"),
        "storage.volumes.data.attachTo",
        '"worker-0"',
        "another worker",
    ),
    Wrong(
        "backups on a control plane",
        second_place("{volume: data}", "data: {holds: backups, attachTo: control-0}"),
        "storage.volumes.data.attachTo",
        '"control-0"',
        "worker",
    ),
]
