//! Real servers, each with the smallest configuration that does the job, ready when the function returns.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Namespace, Process, Scratch, process};

/// nginx with one plain HTTP server on `listen` (`10.2.0.10:80`, `[fd02::10]:80`), files from `root`.
///
/// # Panics
/// When it does not start.
pub fn nginx(ns: &Namespace, listen: &str, root: &Path) -> Process {
    nginx_with(ns, listen, &format!("root {}; location /up {{ dav_methods PUT; }}", root.display()))
}

/// nginx with other directives in its server block.
///
/// # Panics
/// When it does not start.
pub fn nginx_with(ns: &Namespace, listen: &str, server: &str) -> Process {
    let http = format!(
        "worker_processes 1; events {{ worker_connections 19000; multi_accept on; }}
         http {{ access_log off; client_max_body_size 1g; client_header_timeout 1h; keepalive_requests 100000;
                 client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;
                 scgi_temp_path tmp; sendfile on; tcp_nopush off;
                 server {{ listen {listen} backlog=4096; {server} }} }}"
    );
    nginx_raw(ns, &http, port(listen))
}

/// nginx with these contexts, listening on `port` when ready. Relative paths are in a directory of its own.
///
/// # Panics
/// When it does not start.
pub fn nginx_raw(ns: &Namespace, contexts: &str, port: u16) -> Process {
    let scratch = Scratch::new();
    let config = scratch.write(
        "nginx.conf",
        format!(
            "daemon off; user root; pid nginx.pid; error_log stderr error; 
             worker_rlimit_nofile 20000;\n{contexts}\n"
        ),
    );
    let mut command = ns.command("nginx");
    command.arg("-p").arg(scratch.path()).args(["-e", "stderr", "-c"]).arg(config);
    let process = Process::start(&mut command).until_tcp(ns, port);
    process.keep(scratch)
}

/// One nginx that is a server of every kind on an address of `ns`: says its name over TCP on port 7000, is "well" over
/// HTTP (7080) and HTTPS (7443, for the name `lab.test`), and greets over SMTP (7025). With the certificate's path.
///
/// # Panics
/// When it does not start.
pub fn nginx_named(ns: &Namespace, address: &str, name: &str) -> (Process, PathBuf) {
    let scratch = Scratch::new();
    let (key, cert) = certificate(&scratch, "lab.test");
    let contexts = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so; load_module /usr/lib/nginx/modules/ngx_mail_module.so;
         worker_processes 1; events {{ worker_connections 4000; }}
         stream {{ server {{ listen {address}:7000 backlog=4096; return \"{name}\n\"; }} }}
         mail {{ server_name lab.test; auth_http 127.0.0.1:1/;
                server {{ listen {address}:7025; protocol smtp; smtp_auth none; }} }}
         http {{ access_log off; ssl_certificate {}; ssl_certificate_key {};
                server {{ listen {address}:7080; listen {address}:7443 ssl; server_name lab.test;
                         location /well {{ return 200 \"{name} is well\n\"; }} location / {{ return 404; }} }}
                server {{ listen {address}:7080 default_server; return 421; }} }}",
        cert.display(),
        key.display()
    );
    let process = nginx_raw(ns, &contexts, 7000).until_tcp(ns, 7025).until_tcp(ns, 7443);
    (process.keep(scratch), cert)
}

/// dnsmasq that knows one name (`portway.test`), over UDP and TCP.
///
/// # Panics
/// When it does not start.
pub fn dnsmasq(ns: &Namespace, port: u16, v4: &str, v6: &str) -> Process {
    let mut command = ns.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]);
    command.args(["--pid-file", "--no-daemon"]);
    command.arg(format!("--port={port}")).arg(format!("--address=/portway.test/{v4}"));
    command.arg(format!("--address=/portway.test/{v6}"));
    Process::start(&mut command).until_udp(ns, port).until_tcp(ns, port)
}

/// vsftpd for anonymous users, files from `root` (which no one but root may write).
///
/// # Panics
/// When it does not start.
pub fn vsftpd(ns: &Namespace, port: u16, root: &Path) -> Process {
    let scratch = Scratch::new();
    let empty = scratch.dir("empty");
    let config = scratch.write(
        "vsftpd.conf",
        format!(
            "listen=NO\nlisten_ipv6=YES\nlisten_port={port}\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\n\
             ftp_username=daemon\nno_anon_password=YES\nanon_root={}\nsecure_chroot_dir={}\nseccomp_sandbox=NO\n\
             connect_from_port_20=YES\nxferlog_enable=NO\nisolate=NO\n",
            root.display(),
            empty.display()
        ),
    );
    let process = Process::start(ns.command("vsftpd").arg(config)).until_tcp(ns, port);
    process.keep(scratch)
}

/// The TFTP server of tftp-hpa, files from `root`.
///
/// # Panics
/// When it does not start.
pub fn tftpd(ns: &Namespace, address: &str, root: &Path) -> Process {
    let mut command = ns.command("in.tftpd");
    command.args(["--foreground", "--user", "nobody", "--address", address, "--secure"]).arg(root);
    Process::start(&mut command).until_udp(ns, port(address))
}

/// sshd on a high port with keys made for it, and what a client needs to get in.
#[derive(Debug)]
pub struct Sshd {
    scratch: Scratch,
    _process: Process,
}

impl Sshd {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(ns: &Namespace, port: u16) -> Self {
        let scratch = Scratch::new();
        for key in ["host", "client"] {
            let mut keygen = process::program("ssh-keygen");
            process::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(scratch.join(key)));
        }
        fs::copy(scratch.join("client.pub"), scratch.join("authorized")).expect("just made");
        // sshd insists on this directory, which its service file would make.
        fs::create_dir_all("/run/sshd").expect("root may");
        let dir = scratch.path().display();
        let config = scratch.write(
            "sshd_config",
            format!(
                "Port {port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nStrictModes no\nUsePAM no\n\
                 PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
            ),
        );
        let process = Process::start(ns.command("sshd").args(["-D", "-e", "-f"]).arg(config));
        let process = process.until_tcp(ns, port);
        Self { scratch, _process: process }
    }

    /// The options of ssh and scp: this key, and no memory of host keys.
    pub fn options(&self) -> String {
        format!(
            "-F none -i {} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o LogLevel=ERROR",
            self.scratch.join("client").display()
        )
    }
}

/// An HTTP/3 server (ngtcp2's), files from `root`.
///
/// # Panics
/// When it does not start.
pub fn http3(ns: &Namespace, address: &str, root: &Path) -> Process {
    let scratch = Scratch::new();
    let (key, cert) = certificate(&scratch, "portway.test");
    let (host, _) = address.rsplit_once(':').expect("address:port");
    let mut command = ns.command("gtlsserver");
    command.args(["--quiet", "--no-quic-dump", "--no-http-dump", "-d"]).arg(root);
    command.arg(host).arg(port(address).to_string()).arg(&key).arg(&cert);
    let process = Process::start(&mut command).until_udp(ns, port(address));
    process.keep(scratch)
}

/// A key and a self-signed certificate for a name, in a directory: their paths.
///
/// # Panics
/// When openssl fails.
pub fn certificate(directory: &Scratch, name: &str) -> (PathBuf, PathBuf) {
    let (key, cert) = (directory.join("key.pem"), directory.join("cert.pem"));
    let mut openssl = process::program("openssl");
    openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '));
    // Without the second, openssl makes an authority of it, which some clients refuse as a server's own.
    let extensions = [format!("subjectAltName=DNS:{name}"), "basicConstraints=critical,CA:FALSE".to_owned()];
    extensions.iter().for_each(|extension| _ = openssl.args(["-addext", extension]));
    openssl.args(["-subj", &format!("/CN={name}")]);
    process::run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert));
    (key, cert)
}

/// redis without a disk.
///
/// # Panics
/// When it does not start.
pub fn redis(ns: &Namespace, port: u16) -> Process {
    let mut command = ns.command("redis-server");
    command
        .args(["--save", "", "--protected-mode", "no", "--bind", "0.0.0.0", "--port"])
        .arg(port.to_string());
    Process::start(&mut command).until_tcp(ns, port)
}

/// redis that wants a password.
///
/// # Panics
/// When it does not start.
pub fn redis_locked(ns: &Namespace, port: u16, password: &str) -> Process {
    let mut command = ns.command("redis-server");
    command
        .args(["--save", "", "--bind", "0.0.0.0", "--requirepass", password, "--port"])
        .arg(port.to_string());
    Process::start(&mut command).until_tcp(ns, port)
}

/// A TLS server that is OpenSSL's own, for the name `lab.test`. With the certificate's path.
///
/// # Panics
/// When it does not start.
pub fn openssl(ns: &Namespace, port: u16) -> (Process, PathBuf) {
    let scratch = Scratch::new();
    let (key, cert) = certificate(&scratch, "lab.test");
    let mut command = ns.command("openssl");
    command
        .args(["s_server", "-quiet", "-accept", &port.to_string(), "-key"])
        .arg(key)
        .arg("-cert")
        .arg(&cert);
    (Process::start(&mut command).until_tcp(ns, port).keep(scratch), cert)
}

/// An iperf3 server.
///
/// # Panics
/// When it does not start.
pub fn iperf3(ns: &Namespace, port: u16) -> Process {
    Process::start(ns.command("iperf3").args(["-s", "-p"]).arg(port.to_string())).until_tcp(ns, port)
}

/// A file of so many bytes that do not repeat in any period a relay could mistake, and its SHA-256.
///
/// # Panics
/// When it cannot be written.
pub fn blob(path: &Path, bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let content: Vec<u8> = (0..bytes.div_ceil(8))
        .flat_map(|_| {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    fs::write(path, &content[..bytes]).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    sha256(path)
}

/// The SHA-256 of a file.
///
/// # Panics
/// When it cannot be read.
pub fn sha256(path: &Path) -> String {
    let line = process::run(process::program("sha256sum").arg(path));
    line.split_whitespace().next().expect("sha256sum prints a sum").to_owned()
}

fn port(address: &str) -> u16 {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{address} has no port"))
}
