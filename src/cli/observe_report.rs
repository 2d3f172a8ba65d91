//! `dbproxy observe-report`: what `mode = "observe"` has found so far, and whether reads can be switched on.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{DEFAULT_FILE, Failure, Status};
use crate::stats::{self, Comparisons, Destination, Observations, Statement};

/// What to report.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration, whose state directory has the record
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,

    /// The record itself, instead of the one of a configuration
    #[arg(short, long, value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Status, Failure> {
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => {
            let config = super::load(&arguments.config)?.config;
            config.state_directory().join(stats::FILE)
        }
    };
    let observations = stats::read(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Other(format!(
            "{}: nothing has been observed yet: set mode = \"observe\" and run dbproxy serve",
            file.display()
        )),
        _ => Failure::Other(format!("{}: {error}", file.display())),
    })?;
    let report = Report::of(&observations);
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        report.write(out)?;
    }
    Ok(if report.verdict.switch_on {
        Status::Fine
    } else {
        Status::Problems
    })
}

/// What the observations come to.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Seconds of Unix time.
    since: u64,
    until: u64,
    statements: u64,
    would_go: BTreeMap<Destination, u64>,
    compared: u64,
    results: Comparisons,
    verdict: Verdict,
    /// Those with a difference or an error first, then by how often they came.
    digests: Vec<Digest<'a>>,
    not_told_apart: &'a BTreeMap<Destination, u64>,
}

#[derive(Debug, Serialize)]
struct Digest<'a> {
    digest: &'a str,
    count: u64,
    #[serde(flatten)]
    statement: &'a Statement,
}

#[derive(Debug, Default, Serialize)]
struct Verdict {
    switch_on: bool,
    /// What stands against it.
    against: Vec<String>,
    /// What the observations do not tell.
    open: Vec<String>,
}

/// Of each list, so many are shown.
const SHOWN: usize = 20;

/// Statements that are shown for one reason.
const EXAMPLES: usize = 3;

impl<'a> Report<'a> {
    fn of(observations: &'a Observations) -> Self {
        let mut would_go = observations.beyond.clone();
        let mut results = Comparisons::default();
        let mut digests = Vec::new();
        for (digest, statement) in &observations.statements {
            for destination in statement.routes.keys() {
                *would_go.entry(*destination).or_default() += statement.count_to(*destination);
            }
            results.merge(statement.compared.clone());
            digests.push(Digest {
                digest,
                count: statement.count(),
                statement,
            });
        }
        // Examples belong to their statements.
        results.difference = None;
        results.failure = None;
        digests.sort_by_key(|digest| {
            let compared = &digest.statement.compared;
            let wrong = compared.different + compared.failed;
            (std::cmp::Reverse(wrong), std::cmp::Reverse(digest.count))
        });
        Self {
            since: observations.since,
            until: observations.until,
            statements: would_go.values().sum(),
            compared: results.count(),
            verdict: verdict(&digests, &would_go, &results),
            would_go,
            results,
            digests,
            not_told_apart: &observations.beyond,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.statements == 0 {
            writeln!(out, "nothing has been observed yet")?;
            return self.write_verdict(out);
        }
        writeln!(
            out,
            "{}, {}, from {} to {} (UTC)\n",
            counted(self.statements, "statement"),
            counted(self.digests.len() as u64, "kind"),
            date(self.since),
            date(self.until)
        )?;
        for (destination, text) in [
            (Destination::Replica, "would go to a replica"),
            (Destination::Primary, "would go to the primary"),
            (Destination::Connection, "would stay on their connection"),
        ] {
            let count = self.would_go.get(&destination).copied().unwrap_or_default();
            let share = percent(count, self.statements);
            writeln!(out, "  {text:<40} {count:>12}  {share:>7}")?;
        }
        let replica = self.would_go.get(&Destination::Replica).copied();
        let replica = replica.unwrap_or_default();
        let share = percent(self.compared, replica);
        let results = &self.results;
        writeln!(
            out,
            "\n  {:<40} {:>12}  {share:>7}",
            "of the reads for replicas, compared", self.compared
        )?;
        for (text, count) in [
            ("  equal", results.equal),
            ("    of these, rows in another order", results.reordered),
            ("  equal at a second look", results.later),
            ("  different", results.different),
            ("  failed on the replica", results.failed),
            ("  not comparable", results.unknown()),
        ] {
            writeln!(out, "  {text:<40} {count:>12}")?;
        }
        for (reason, count) in &results.unknown {
            let text = format!("    {reason}");
            writeln!(out, "  {text:<40} {count:>12}")?;
        }
        self.write_wrong(out)?;
        self.write_primary(out)?;
        self.write_verdict(out)
    }

    fn write_wrong(&self, out: &mut dyn Write) -> io::Result<()> {
        let wrong: Vec<_> = self.digests.iter().filter(|one| one.is_wrong()).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nDifferent on a replica, or failed there")?;
        for digest in wrong.iter().take(SHOWN) {
            let compared = &digest.statement.compared;
            writeln!(out, "\n  {}", digest.text())?;
            writeln!(
                out,
                "    digest {}, {}, compared {}: {} different, {} failed, {} equal",
                digest.digest,
                counted(digest.count, "time"),
                compared.count(),
                compared.different,
                compared.failed,
                compared.equal + compared.later
            )?;
            if let Some(last) = &compared.difference {
                let columns = if last.columns {
                    ", and other columns"
                } else if last.primary_rows == last.replica_rows {
                    ", with other values"
                } else {
                    ""
                };
                writeln!(
                    out,
                    "    last difference {}: {} on the primary, {} on {}{columns}",
                    date(last.at),
                    counted(last.primary_rows, "row"),
                    last.replica_rows,
                    last.server
                )?;
            }
            if let Some(last) = &compared.failure {
                let message = match last.message.as_str() {
                    "" => "(its text may quote values)".to_owned(),
                    message => printable(message),
                };
                writeln!(
                    out,
                    "    last error {} on {}: {} {message}",
                    date(last.at),
                    last.server,
                    last.code
                )?;
            }
            if let Some(note) = digest.doubt() {
                writeln!(out, "    note: {note}")?;
            }
        }
        more(out, wrong.len())
    }

    /// Why statements would go to the primary, or stay where they are.
    fn write_primary(&self, out: &mut dyn Write) -> io::Result<()> {
        /// How many, and each kind with its count.
        type Counted = (u64, Vec<(u64, String)>);
        let mut reasons: BTreeMap<&str, Counted> = BTreeMap::new();
        for digest in &self.digests {
            for destination in [Destination::Primary, Destination::Connection] {
                let routes = digest.statement.routes.get(&destination);
                for (reason, count) in routes.into_iter().flatten() {
                    let (sum, examples) = reasons.entry(reason).or_default();
                    *sum += count;
                    examples.push((*count, digest.text()));
                }
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nNot for replicas, and why")?;
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let len = reasons.len();
        for (reason, (count, mut examples)) in reasons.into_iter().take(SHOWN) {
            writeln!(out, "\n  {count:>12}  {reason}")?;
            examples.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
            let others = examples.len().saturating_sub(EXAMPLES);
            for (count, text) in examples.iter().take(EXAMPLES) {
                writeln!(out, "  {count:>20}  {text}")?;
            }
            if others > 0 {
                writeln!(
                    out,
                    "  {:>20}  and {} more",
                    "",
                    counted(others as u64, "kind")
                )?;
            }
        }
        more(out, len)
    }

    fn write_verdict(&self, out: &mut dyn Write) -> io::Result<()> {
        let verdict = &self.verdict;
        if verdict.switch_on {
            writeln!(
                out,
                "\nVerdict: switch on: mode = \"route\". {} compared, and right.",
                counted(self.results.equal + self.results.later, "answer")
            )?;
        } else {
            writeln!(out, "\nVerdict: not yet.")?;
        }
        for (list, title) in [
            (&verdict.against, "Against it:"),
            (&verdict.open, "Not known:"),
        ] {
            for text in list {
                writeln!(out, "  {title} {text}")?;
            }
        }
        Ok(())
    }
}

impl Digest<'_> {
    fn is_wrong(&self) -> bool {
        self.statement.compared.different + self.statement.compared.failed > 0
    }

    fn text(&self) -> String {
        match self.statement.text.as_str() {
            "" => "(not shown: what in it is a value is not sure)".to_owned(),
            text if text.chars().count() > WIDTH => {
                let short: String = text.chars().take(WIDTH).collect();
                printable(&short) + "…"
            }
            text => printable(text),
        }
    }

    /// Why a difference may be none.
    fn doubt(&self) -> Option<&'static str> {
        if self.statement.compared.different == 0 {
            return None;
        }
        let text = format!(" {} ", self.statement.text.to_ascii_uppercase());
        if text.contains(" LIMIT ") {
            Some("with LIMIT, which rows it gets is open unless ORDER BY tells all of them apart")
        } else if text.contains("GROUP_CONCAT") || text.contains("ARRAYAGG") {
            Some("the order within an aggregate is open unless it has an ORDER BY of its own")
        } else {
            None
        }
    }
}

/// With fewer answers that were right, the report says that these are few.
const ENOUGH: u64 = 100;

/// Characters of a statement that are shown.
const WIDTH: usize = 200;

/// What the evidence comes to.
fn verdict(
    digests: &[Digest<'_>],
    would_go: &BTreeMap<Destination, u64>,
    results: &Comparisons,
) -> Verdict {
    let mut verdict = Verdict::default();
    let count = |wrong: fn(&Comparisons) -> bool| {
        let digests = digests.iter().map(|digest| &digest.statement.compared);
        digests.filter(|compared| wrong(compared)).count() as u64
    };
    let against = &mut verdict.against;
    let different = count(|compared| compared.different > 0);
    if different > 0 {
        against.push(format!(
            "{} got other answers from a replica that had everything: its data differs",
            counted(different, "kind of read")
        ));
    }
    let failed = count(|compared| compared.failed > 0);
    if failed > 0 {
        against.push(format!(
            "{} failed on a replica: something or somebody is not known there",
            counted(failed, "kind of read")
        ));
    }
    let replica = would_go.get(&Destination::Replica).copied();
    let replica = replica.unwrap_or_default();
    if replica == 0 {
        against.push("no statement would have gone to a replica: the reasons are above".to_owned());
    } else if results.equal + results.later == 0 {
        against.push("no two answers could be held against each other yet".to_owned());
    }
    let right = results.equal + results.later;
    if (1..ENOUGH).contains(&right) {
        let open = &mut verdict.open;
        open.push(
            "how it looks over time: few answers were compared; wait, or raise observe.sample"
                .to_owned(),
        );
    }
    let unmet: u64 = digests
        .iter()
        .filter(|digest| digest.statement.compared.is_empty())
        .map(|digest| digest.statement.count_to(Destination::Replica))
        .sum();
    if unmet > 0 && replica > 0 {
        verdict.open.push(format!(
            "{} of the reads for replicas are of kinds of which none was compared",
            percent(unmet, replica)
        ));
    }
    let unknown = digests
        .iter()
        .filter(|digest| {
            let compared = &digest.statement.compared;
            !compared.is_empty() && compared.unknown() == compared.count()
        })
        .map(|digest| digest.statement.count_to(Destination::Replica))
        .sum();
    if unknown > 0 {
        verdict.open.push(format!(
            "{} of the reads for replicas are of kinds that could not be compared",
            percent(unknown, replica)
        ));
    }
    verdict.switch_on = verdict.against.is_empty();
    verdict
}

fn more(out: &mut dyn Write, len: usize) -> io::Result<()> {
    match len.checked_sub(SHOWN) {
        Some(0) | None => Ok(()),
        Some(more) => writeln!(out, "\n  … and {more} more: --json has all"),
    }
}

/// Names may hold anything.
fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A number and what it counts.
fn counted(count: u64, what: &str) -> String {
    if count == 1 {
        return format!("1 {what}");
    }
    match what.split_once(' ') {
        Some((head, tail)) => format!("{count} {head}s {tail}"),
        None => format!("{count} {what}s"),
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

/// Unix time as a date and a time of day, UTC.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // https://howardhinnant.github.io/date_algorithms.html#civil_from_days, for days after 1970.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Difference, Failed, Verdict as Judged};

    fn statement(text: &str, destination: Destination, reason: &str, count: u64) -> Statement {
        Statement {
            text: text.to_owned(),
            first: 951_782_400,
            last: 951_868_799,
            routes: BTreeMap::from([(destination, BTreeMap::from([(reason.to_owned(), count)]))]),
            compared: Comparisons::default(),
        }
    }

    fn observations(statements: &[Statement]) -> Observations {
        let mut all = Observations::default();
        for (number, statement) in statements.iter().enumerate() {
            all.merge(Observations {
                since: statement.first,
                until: statement.last,
                statements: BTreeMap::from([(format!("{number:016x}"), statement.clone())]),
                ..Observations::default()
            });
        }
        all
    }

    fn text(observations: &Observations) -> (String, bool) {
        let report = Report::of(observations);
        let mut out = Vec::new();
        report.write(&mut out).unwrap();
        (String::from_utf8(out).unwrap(), report.verdict.switch_on)
    }

    #[test]
    fn equal_answers_are_a_reason_to_switch_on() {
        let mut read = statement("SELECT a FROM t", Destination::Replica, "read", 300);
        read.compared.add(Judged::Equal { reordered: true });
        let write = statement(
            "INSERT INTO t VALUES (?)",
            Destination::Primary,
            "write",
            100,
        );
        let (text, switch_on) = text(&observations(&[read, write]));
        assert!(switch_on, "{text}");
        for line in [
            "400 statements, 2 kinds, from 2000-02-29 00:00:00 to 2000-02-29 23:59:59 (UTC)",
            "  would go to a replica                             300   75.0 %",
            "           100  write",
            "                   100  INSERT INTO t VALUES (?)",
            "Verdict: switch on: mode = \"route\". 1 answer compared, and right.",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_stands_against_it_is_said_first() {
        let often = statement("SELECT often FROM t", Destination::Replica, "read", 300);
        let mut differs = statement("SELECT a FROM t LIMIT ?", Destination::Replica, "read", 2);
        differs.compared.add(Judged::Different(Difference {
            server: "db2".to_owned(),
            at: 0,
            primary_rows: 1,
            replica_rows: 2,
            columns: false,
        }));
        let mut fails = statement("SELECT b FROM u", Destination::Replica, "read", 1);
        fails.compared.add(Judged::Failed(Failed {
            server: "db3".to_owned(),
            at: 0,
            code: 1146,
            message: "Table 'u' doesn't exist".to_owned(),
        }));
        fails.compared.add(Judged::Unknown("too slow"));
        let observed = observations(&[often, differs, fails]);
        let (text, switch_on) = text(&observed);
        assert!(!switch_on, "{text}");
        for part in [
            "last difference 1970-01-01 00:00:00: 1 row on the primary, 2 on db2",
            "note: with LIMIT",
            "last error 1970-01-01 00:00:00 on db3: 1146 Table 'u' doesn't exist",
            "1 kind of read got other answers",
            "1 kind of read failed on a replica",
            "Not known: 99.0 % of the reads for replicas are of kinds of which none was compared",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let report = Report::of(&observed);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["digests"][0]["text"], "SELECT a FROM t LIMIT ?");
        assert_eq!(json["verdict"]["switch_on"], false);
        assert_eq!(json["results"]["failed"], 1);
    }

    #[test]
    fn without_evidence_nothing_is_switched_on() {
        let (none, switch_on) = text(&Observations::default());
        assert!(none.contains("nothing has been observed yet") && !switch_on);
        let read = statement("SELECT a FROM t", Destination::Replica, "read", 3);
        let (text, switch_on) = text(&observations(&[read]));
        assert!(text.contains("no two answers") && !switch_on, "{text}");
    }
}
