use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Error;

/// A child process that ends itself, and all it started, when its standard input closes.
///
/// The other end of that pipe is here, so it closes when this is dropped and when our process ends in whatever
/// way. A static is never dropped and nothing runs after SIGKILL; the pipe covers both.
#[derive(Debug)]
pub(super) struct Lifeline {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Lifeline {
    /// Starts the child and waits for the line on its standard output that begins with `ready`; returns it.
    ///
    /// # Errors
    ///
    /// If the child ends before, with what it wrote.
    pub(super) fn start(mut command: Command, ready: &str) -> Result<(Lifeline, String), Error> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A Ctrl-C reaches the whole process group: the child has to outlive us by a moment.
        command.process_group(0);

        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.spawn().map_err(|error| Error::because(format_args!("cannot run {program}"), &error))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let lifeline = Lifeline { child, stdin };

        let stdout = stdout.ok_or_else(|| Error::new(format!("{program} has no standard output")))?;
        match wait_for(ready, stdout) {
            Ok(Ok(line)) => Ok((lifeline, line)),
            Ok(Err(output)) => Err(Error::new(format!("{program} ended before it was ready: {output}"))),
            Err(error) => Err(Error::because(format_args!("cannot read from {program}"), &error)),
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// The first line that begins with `ready`, or everything that was written instead, as one line.
fn wait_for(ready: &str, stdout: ChildStdout) -> io::Result<Result<String, String>> {
    let mut stdout = BufReader::new(stdout);
    let mut before = Vec::new();
    loop {
        let mut line = Vec::new();
        if stdout.read_until(b'\n', &mut line)? == 0 {
            let text = String::from_utf8_lossy(&before);
            return Ok(Err(text.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        if line.starts_with(ready.as_bytes()) {
            // Whatever else the child writes must not end it with a broken pipe.
            std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
            return Ok(Ok(String::from_utf8_lossy(&line).trim_end().to_owned()));
        }
        before.extend(line);
    }
}
