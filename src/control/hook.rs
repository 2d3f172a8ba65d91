//! Runs an operator's program: what it is about on its standard input, its exit status the answer.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Of what a program writes so much is kept.
const KEPT: usize = 8 << 10;

/// What a program has written before it ended is read for so long: a process that it has left behind may keep the pipe.
const REST: Duration = Duration::from_millis(200);

/// Where programs look for others; nothing else of the environment is theirs, for passwords may be in it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program is told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    pub(super) hook: &'static str,
    pub(super) cluster: String,
    pub(super) plan: String,
    pub(super) purpose: String,
    pub(super) epoch: u64,
    pub(super) why: String,
    /// The primary so far.
    pub(super) old: Option<Server>,
    /// The one that follows it, as far as that is decided.
    pub(super) new: Option<Server>,
}

/// A server, as a program is told of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) address: String,
    /// What the server says that it is; `None` if it never said anything.
    pub(super) identity: Option<String>,
}

/// What became of a program.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Why it has not succeeded.
    pub(super) failure: Option<String>,
    /// The beginning of what it has written.
    pub(super) said: String,
}

/// Runs a program, which has so long, and ends it with its process group after that.
pub(super) async fn run(program: &Path, case: &Case, limit: Duration) -> Outcome {
    let said = Arc::new(Mutex::new(Vec::new()));
    let ended = match start(program) {
        Ok((child, output)) => follow(child, output, case, limit, &said).await,
        Err(error) => Err(format!("cannot be started: {error}")),
    };
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let said = String::from_utf8_lossy(&said).trim_end().to_owned();
    let failure = ended.err().map(|why| {
        let last = said.lines().last().unwrap_or_default();
        let colon = if last.is_empty() { "" } else { ": " };
        format!("{} {why}{colon}{last}", program.display())
    });
    Outcome { failure, said }
}

/// Never through a shell. Gives the program and what it writes, in the order in which it writes it.
fn start(program: &Path) -> io::Result<(Child, Receiver)> {
    let (output, writer) = io::pipe()?;
    let output = Receiver::from_owned_fd(output.into())?;
    let child = Command::new(program)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

/// Waits for the end of a program. The error says why it is no success.
async fn follow(
    mut child: Child,
    output: Receiver,
    case: &Case,
    limit: Duration,
    said: &Arc<Mutex<Vec<u8>>>,
) -> Result<(), String> {
    let input = serde_json::to_vec(case).unwrap_or_default();
    let mut stdin = child.stdin.take();
    let kept = Arc::clone(said);
    let mut talk = tokio::spawn(async move {
        let tell = async {
            if let Some(stdin) = &mut stdin {
                // It need not read it.
                let _ = stdin.write_all(&input).await;
            }
            stdin = None;
        };
        tokio::join!(tell, hear(output, kept));
    });
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let waited = timeout(limit, child.wait()).await;
    let ended = match waited {
        Ok(status) => {
            group.let_go();
            status.map_err(|error| format!("was lost sight of: {error}"))
        }
        Err(_) => {
            drop(group);
            let _ = child.wait().await;
            Err(format!("was ended after {} s", limit.as_secs_f32()))
        }
    };
    let _ = timeout(REST, &mut talk).await;
    talk.abort();
    ended.and_then(judge)
}

fn judge(status: ExitStatus) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        false => Err(format!("has failed ({status})")),
    }
}

/// Reads to the end, and keeps the beginning.
async fn hear(mut source: Receiver, said: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = source.read(&mut buffer).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(said.len());
        said.extend(buffer.iter().take(length.min(room)));
    }
}

/// A program and those that it has started. They end with this.
struct Group(Option<Pid>);

impl Group {
    /// The program has ended by itself; what it left behind is meant.
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // None of them may be left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn script(text: &str) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hook");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)
            .unwrap();
        let place = directory.path().display();
        file.write_all(format!("#!/bin/sh\nhere={place}\n{text}\n").as_bytes())
            .unwrap();
        (directory, path)
    }

    fn case() -> Case {
        let server = |name: &str| Server {
            name: name.to_owned(),
            address: "10.0.0.1:3306".to_owned(),
            identity: Some("7".to_owned()),
        };
        Case {
            hook: "fence",
            cluster: "main".to_owned(),
            plan: "failover-2".to_owned(),
            purpose: "failover".to_owned(),
            epoch: 2,
            why: "db1 is dead; $(touch /tmp/x) 'quoted'".to_owned(),
            old: Some(server("db1")),
            new: None,
        }
    }

    #[tokio::test]
    async fn a_program_is_told_what_it_is_about_and_nothing_else() {
        let (directory, path) =
            script("cat > $here/input; env > $here/env; echo done; echo hm >&2");
        let outcome = run(&path, &case(), LONG).await;
        assert_eq!(outcome.failure, None);
        assert!(outcome.said.contains("done") && outcome.said.contains("hm"));
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let input: serde_json::Value = serde_json::from_str(&read("input")).unwrap();
        assert_eq!(input, serde_json::to_value(case()).unwrap());
        let environment = read("env");
        let names = environment
            .lines()
            .filter_map(|line| line.split('=').next());
        let own: Vec<_> = names
            .filter(|name| !["PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(name))
            .collect();
        assert!(own.is_empty(), "{own:?}");
    }

    #[tokio::test]
    async fn its_status_is_the_answer() {
        let (_directory, path) = script("echo one; echo no power >&2; exit 3");
        let failure = run(&path, &case(), LONG).await.failure.unwrap();
        assert!(failure.contains("exit status: 3"), "{failure}");
        assert!(failure.ends_with(": no power"), "{failure}");
        let (directory, _) = script("");
        let lacking = directory.path().join("lacking");
        let failure = run(&lacking, &case(), LONG).await.failure.unwrap();
        assert!(failure.contains("cannot be started"), "{failure}");
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_ended_with_all_that_it_started() {
        let (directory, path) = script("sleep 1000 & echo $! > $here/child; wait");
        let failure = run(&path, &case(), Duration::from_secs(1)).await;
        let failure = failure.failure.unwrap();
        assert!(failure.contains("was ended after 1 s"), "{failure}");
        let child = fs::read_to_string(directory.path().join("child")).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
        let begun = tokio::time::Instant::now();
        // Gone, or dead and not yet collected by whoever inherits it.
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(begun.elapsed() < LONG, "it still runs");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_it_writes_is_kept_up_to_a_bound_and_what_it_leaves_behind_is_not_waited_for() {
        let (_directory, path) = script("head -c 1000000 /dev/zero | tr '\\0' x; sleep 5 & exit 0");
        let outcome = run(&path, &case(), LONG).await;
        assert_eq!(outcome.failure, None);
        assert_eq!(outcome.said.len(), KEPT);
    }
}
