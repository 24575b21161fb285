//! Tests of the programs in `examples/providers`, copied as a user copies them, against real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::cli::shells::installed;
use crate::fixtures::repository;
use crate::sandbox::{Sandbox, send, sessions, wait_until};

/// Creates a sandbox with one of the programs and its schema, or returns `None` without Python.
fn with_provider(name: &str) -> Option<Sandbox> {
    if !installed("python3") {
        eprintln!("NOT TESTED: python3 is not installed");
        return None;
    }
    let sandbox = Sandbox::new();
    for file in [name.to_owned(), format!("{name}.schema.json")] {
        let example = repository("examples/providers").join(&file);
        let path = format!("providers/{file}");
        sandbox.write(&path, &fs::read_to_string(&example).unwrap());
        fs::set_permissions(sandbox.repository.join(path), fs::metadata(example).unwrap().permissions())
            .unwrap();
    }
    sandbox.commit("a provider");
    Some(sandbox)
}

fn provider(kind: &str, name: &str, more: &str) -> String {
    format!(
        "[provider.{kind}]\ncommand = ['./providers/{name}']\nschema = 'providers/{name}.schema.json'\n{more}"
    )
}

fn variable(sandbox: &Sandbox, directory: &Path, session: &str, name: &str) -> String {
    let env = sandbox.seedbed_in(directory, &["env", session, "--json"]).expect(0).json();
    env["environment"][name].as_str().unwrap_or_else(|| panic!("{name}: {env}")).to_owned()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A `PostgreSQL` server that ends with the test.
struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    port: u64,
}

impl Postgres {
    /// Starts a server whose files are in the sandbox; `None` if none is installed.
    fn start(sandbox: &Sandbox) -> Option<Self> {
        let programs = postgres_programs()?;
        let data = sandbox.top.join("postgres");
        fs::create_dir(&data).unwrap();
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&sandbox.top, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
        }
        let server = Self { programs, data, port: sandbox.base_port + 511 };
        let cluster = server.cluster();
        text(&server.run("initdb", &["-D", &cluster, "-A", "trust", "-U", "postgres", "-N"]));
        server.begin();
        Some(server)
    }

    fn cluster(&self) -> String {
        self.data.join("cluster").into_os_string().into_string().unwrap()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let program = self.programs.join(program);
        let mut command = Command::new("setpriv");
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        } else {
            command = Command::new(program);
        }
        command.args(arguments).env("LC_ALL", "C").current_dir(&self.data).output().unwrap()
    }

    fn begin(&self) {
        let options = format!("-k '' -p {} -c listen_addresses=127.0.0.1 -c fsync=off", self.port);
        let log = self.data.join("log");
        let log = log.to_str().unwrap();
        text(&self.run("pg_ctl", &["-D", &self.cluster(), "-o", &options, "-w", "-l", log, "start"]));
    }

    fn stop(&self) -> bool {
        self.run("pg_ctl", &["-D", &self.cluster(), "-m", "immediate", "stop"]).status.success()
    }

    fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn sql(&self, database: &str, sql: &str) -> Vec<String> {
        let rows = self.run("psql", &["-X", "-A", "-t", "-d", &self.url(database), "-c", sql]);
        text(&rows).lines().map(str::to_owned).collect()
    }

    /// Returns the databases that programs have created.
    fn databases(&self) -> Vec<String> {
        self.sql("postgres", "SELECT datname FROM pg_database WHERE datname ~ '^(shop_|seedbed_)' ORDER BY 1")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
#[ignore = "takes minutes"]
fn postgres_databases_of_sixteen_sessions_in_every_case() {
    let Some(sandbox) = with_provider("postgres-database") else { return };
    let Some(server) = Postgres::start(&sandbox) else {
        return eprintln!("NOT TESTED: PostgreSQL is not installed");
    };
    server.sql("postgres", "CREATE DATABASE app_template");
    server.sql("app_template", "CREATE TABLE migrations AS SELECT 1 AS version");
    let migrate =
        "psql -q -d \"$DATABASE_URL\" -c 'INSERT INTO migrations VALUES (2)' -c 'CREATE TABLE users ()'";
    sandbox.manifest(&format!(
        "{}[session.api]\ncount = 16\nsetup = [['sh', '-c', '''{migrate}''']]\n\
         resources = [{{ kind = 'database', url = '{}', template = 'app_template' }}]\n\
         [session.api.child.worker]\n",
        provider("database", "postgres-database", ""),
        server.url("postgres")
    ));
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let databases = server.databases();
    assert_eq!(databases.len(), 16);
    for database in &databases {
        // The child has migrated the database as well, if it was not the first.
        assert_eq!(server.sql(database, "SELECT count(*) > 1 FROM migrations"), ["t"], "{database}");
    }
    let of = |session: &str| variable(&sandbox, &sandbox.repository, session, "DATABASE_URL");
    assert_eq!(of("api-3"), of("api-3/worker"));
    assert_ne!(of("api-3"), of("api-4"));
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    // A database that was dropped is made again, and one of another owner is left alone.
    server.sql("postgres", &format!("DROP DATABASE {}", databases[0]));
    sandbox.ok(&["apply", "--yes"]);
    assert_eq!(server.databases(), databases);
    // Without the server nothing is forgotten.
    assert!(server.stop());
    for args in [&["destroy"][..], &["apply", "--yes"]] {
        let refused = sandbox.seedbed(args);
        assert_ne!(refused.code, 0, "{refused:?}");
    }
    sandbox.seedbed(&["destroy"]).expect(69).says(&["the state of its database is unknown", "start what"]);
    server.begin();
    sandbox.ok(&["status"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(server.databases(), [""; 0]);
    // A kill at any time leaves no database after `recover`.
    for created in [1, 6, 15] {
        let mut killed = sandbox.start(&["apply"]);
        wait_until("databases are created", || server.databases().len() >= created);
        send(Signal::KILL, &killed);
        killed.wait().unwrap();
        sandbox.ok(&["recover"]);
        assert_eq!(server.databases(), [""; 0], "after {created}");
    }
    crate::sandbox::assert_same(&before, &sandbox.inventory());
}

/// Returns the directory of the programs of a `PostgreSQL` server; `None` if none is installed.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.map(|entry| entry.unwrap().path().join("bin")).find(|bin| bin.join("initdb").exists())
}

/// Directory of servers that end with the test, even if it fails.
struct Servers(PathBuf);

impl Servers {
    /// Returns whether a server has a file of this name.
    fn have(&self, part: &str) -> bool {
        fs::read_dir(&self.0)
            .is_ok_and(|found| found.flatten().any(|server| server.path().join(part).exists()))
    }

    fn pid(data: &Path) -> Option<rustix::process::Pid> {
        let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        rustix::process::Pid::from_raw(file.lines().next()?.parse().ok()?)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            Self::pid(&server.path().join("data"))
                .map(|pid| rustix::process::kill_process(pid, Signal::QUIT));
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn postgres_servers_on_ports_of_their_sessions_in_every_case() {
    let Some(sandbox) = with_provider("postgres-server") else { return };
    if postgres_programs().is_none() {
        return eprintln!("NOT TESTED: PostgreSQL is not installed");
    }
    // The user of the server reaches its files below.
    fs::set_permissions(&sandbox.top, fs::Permissions::from_mode(0o755)).unwrap();
    let servers = Servers(sandbox.top.join("postgres-servers"));
    let manifest = |port: &str| {
        sandbox.manifest(&format!(
            "{}[session.api]\ncount = 2\n\
             setup = [['sh', '-c', 'psql -q -d \"$DATABASE_URL\" -c \"CREATE TABLE IF NOT EXISTS users ()\"']]\n\
             resources = ['git-worktree', {{ kind = 'port-range', names = ['http', 'db'] }}, \
             {{ kind = 'server', port = '{port}' }}]\n[session.api.child.worker]\n",
            provider("server", "postgres-server", "").replace("['./", &format!("['env', 'XDG_STATE_HOME={}', './", sandbox.top.display()))
        ));
    };
    manifest("database");
    sandbox.unchanged(|| {
        sandbox
            .seedbed(&["plan"])
            .expect(65)
            .says(&["the session has no port `database`", "port = 'database'"])
    });
    manifest("db");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let url = |session: &str| variable(&sandbox, &sandbox.repository, session, "DATABASE_URL");
    let sql = |session: &str, sql: &str| {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-A", "-t", "-d", &url(session), "-c", sql]).output().unwrap()
    };
    assert_eq!(url("api-0"), url("api-0/worker"));
    assert_ne!(url("api-0"), url("api-1"));
    let data = PathBuf::from(text(&sql("api-0", "SHOW data_directory")).trim());
    text(&sql("api-0", "CREATE TABLE orders ()"));
    assert_eq!(text(&sql("api-1", "SELECT count(*) FROM pg_tables WHERE tablename = 'orders'")), "0\n");
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    // A server that has stopped, here by its signal for an immediate shutdown, is started again, with its data.
    rustix::process::kill_process(Servers::pid(&data).unwrap(), Signal::QUIT).unwrap();
    wait_until("the server has stopped", || Servers::pid(&data).is_none());
    let status = sandbox.ok(&["status"]);
    assert!(status.stdout.contains("the server does not run"), "{status:?}");
    sandbox.ok(&["status", "--repair"]);
    text(&sql("api-0", "TABLE orders"));
    // The session's server is no process at work.
    sandbox.ok(&["destroy"]);
    assert!(!servers.have(""));
    crate::sandbox::assert_same(&before, &sandbox.inventory());
    // A kill at any time leaves no server after `recover`.
    for part in ["new", "data", "log"] {
        let mut killed = sandbox.start(&["apply"]);
        wait_until(part, || servers.have(part));
        send(Signal::KILL, &killed);
        killed.wait().unwrap();
        sandbox.ok(&["recover"]);
        assert!(!servers.have(""), "{part}");
        crate::sandbox::assert_same(&before, &sandbox.inventory());
    }
}

/// A Redis server that ends with the test.
struct Redis(std::process::Child, u64);

impl Redis {
    fn start(sandbox: &Sandbox) -> Option<Self> {
        installed("redis-server").then(|| {
            let port = sandbox.base_port + 511;
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
            let server =
                Self(command.arg(&sandbox.top).stdout(std::process::Stdio::null()).spawn().unwrap(), port);
            wait_until("the server answers", || server.run(0, &["PING"]).trim() == "PONG");
            server
        })
    }

    fn run(&self, number: u64, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.1.to_string(), "-n", &number.to_string()]).args(words);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "takes minutes"]
fn redis_databases_of_two_swarms_in_every_case() {
    let Some(sandbox) = with_provider("redis-database") else { return };
    let Some(server) = Redis::start(&sandbox) else { return eprintln!("NOT TESTED: Redis is not installed") };
    let manifest = |count: usize| {
        sandbox.manifest(&format!(
            "{}[session.api]\ncount = {count}\n\
             resources = [{{ kind = 'cache', url = 'redis://127.0.0.1:{}' }}]\n",
            provider("cache", "redis-database", "claim = true\n"),
            server.1
        ));
    };
    server.run(2, &["SET", "of", "another program"]);
    manifest(6);
    let clone = sandbox.clone_to("clone");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    let number = |directory: &Path, session: usize| {
        let url = variable(&sandbox, directory, &format!("api-{session}"), "REDIS_URL");
        url.rsplit('/').next().unwrap().parse::<u64>().unwrap()
    };
    let mut numbers: Vec<u64> =
        (0..6).flat_map(|at| [number(&sandbox.repository, at), number(&clone, at)]).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    server.run(number(&sandbox.repository, 0), &["SET", "data", "1"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    manifest(10);
    sandbox.seedbed(&["plan"]).expect(65).says(&["no database of the server is free"]);
    manifest(6);
    server.run(number(&sandbox.repository, 1), &["FLUSHDB"]);
    assert!(sandbox.ok(&["plan"]).stdout.contains("was emptied or replaced"));
    sandbox.ok(&["apply", "--yes"]);
    sandbox.seedbed_in(&clone, &["destroy"]).expect(0);
    sandbox.ok(&["destroy"]);
    let used: Vec<u64> = (0..16).filter(|number| server.run(*number, &["DBSIZE"]).trim() != "0").collect();
    assert_eq!(used, [2]);
    let mut killed = sandbox.start(&["apply"]);
    wait_until("a number is taken", || server.run(0, &["DBSIZE"]).trim() == "1");
    send(Signal::KILL, &killed);
    killed.wait().unwrap();
    sandbox.ok(&["recover"]);
    assert_eq!(server.run(0, &["DBSIZE"]).trim(), "0");
    crate::sandbox::assert_same(&before, &sandbox.inventory());
    drop(server);
    sandbox.seedbed(&["plan"]).expect(65).says(&["Connection refused"]);
}

/// The program that stands in for Docker records its arguments: the real one needs a daemon.
#[test]
fn compose_project_has_the_ports_of_its_session() {
    let Some(sandbox) = with_provider("compose-project") else { return };
    let docker = sandbox.top.join("bin/docker");
    fs::create_dir(docker.parent().unwrap()).unwrap();
    let record = sandbox.top.join("docker");
    fs::write(
        &docker,
        format!(
            "#!/bin/sh\ntest ! -e '{0}.down' || {{ echo 'no daemon' >&2; exit 1; }}\necho \"$@\" >>'{0}'\n",
            record.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::join_paths(
        std::iter::once(docker.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap().into_string().unwrap();
    let manifest = |options: &str| {
        sandbox.manifest(&format!(
            "[provider.stack]\ncommand = ['env', 'PATH={path}', './providers/compose-project']\n\
             schema = 'providers/compose-project.schema.json'\n[session.api]\n\
             resources = ['git-worktree', {{ kind = 'port-range', names = ['http'] }}, {{ kind = 'stack', {options} }}]\n"
        ));
    };
    // An editor's schema has the options as well.
    let kind = "stack=providers/compose-project.schema.json";
    let schema = sandbox.ok(&["schema", "--kind", kind]).json();
    assert!(schema["$defs"]["stack.request"]["properties"]["ports"].is_object(), "{schema}");
    sandbox
        .seedbed(&["schema", "--kind", "pool=seedbed.toml"])
        .expect(64)
        .says(&["--kind pool=seedbed.toml"]);
    // Options are checked by the schema, without running the program, at their location.
    manifest("ports = { web = { http = 'x' } }, fil = 'x'");
    let refused = sandbox.seedbed(&["validate"]).expect(65);
    refused.says(&["`fil`", "help: ", "file", "http = 'x'", "[wrong-type]"]);
    manifest("ports = { web = { https = 80 } }");
    sandbox.unchanged(|| {
        let refused = sandbox.seedbed(&["plan"]).expect(65);
        refused.says(&["the session has no port `https`", "ports = { web = { https = 80 } }", "`names`"])
    });
    manifest("ports = { web = { http = 80 } }");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let plan = sandbox.plan();
    let port = sessions(&plan).next().unwrap()["env"]["AGENT_PORT_HTTP"].as_str().unwrap().to_owned();
    let files = variable(&sandbox, &sandbox.repository, "api", "COMPOSE_FILE");
    let file = fs::read_to_string(files.split_once(':').unwrap().1).unwrap();
    assert!(file.contains(&format!("\"127.0.0.1:{port}:80\"")), "{file}");
    fs::remove_file(files.split_once(':').unwrap().1).unwrap();
    sandbox.ok(&["status", "--repair"]);
    assert_eq!(fs::read_to_string(files.split_once(':').unwrap().1).unwrap(), file);
    let project = variable(&sandbox, &sandbox.repository, "api", "COMPOSE_PROJECT_NAME");
    // What the project publishes does not keep it from being released: a process of Docker's, not of the session's.
    let listen =
        format!("import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)");
    let mut published = Command::new("python3").args(["-c", &listen]).current_dir("/").spawn().unwrap();
    let address = format!("127.0.0.1:{port}");
    wait_until("the port is published", || std::net::TcpStream::connect(&address).is_ok());
    // Without the daemon nothing is forgotten.
    fs::write(record.with_extension("down"), "").unwrap();
    sandbox.seedbed(&["destroy"]).expect(73).says(&["no daemon"]);
    fs::remove_file(record.with_extension("down")).unwrap();
    sandbox.ok(&["recover"]);
    sandbox.seedbed(&["destroy"]);
    published.kill().unwrap();
    published.wait().unwrap();
    let run = fs::read_to_string(&record).unwrap();
    assert!(
        run.contains(&format!("compose --project-name {project} down --volumes --remove-orphans")),
        "{run}"
    );
    fs::remove_file(record).unwrap();
    crate::sandbox::assert_same(&before, &sandbox.inventory());
    let has_compose =
        Command::new("docker").args(["compose", "version"]).output().is_ok_and(|out| out.status.success());
    if !has_compose {
        eprintln!("NOT TESTED with docker compose: it is not installed");
    }
}
