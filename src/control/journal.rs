//! What was seen, decided and done, line by line, so that a night can be explained in the morning.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{info, warn};

use crate::failover::Entry;

/// One line.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Line {
    /// What kind of event.
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    /// In words.
    pub(super) text: String,
    /// The statements, without secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sql: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) milliseconds: Option<f64>,
    /// What a program of the operator's has written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Serialize)]
struct Stamped<'a> {
    /// By the clock on the wall; nothing is decided by it.
    at: String,
    cluster: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

/// A file to which lines are added.
#[derive(Debug)]
pub(super) struct Journal {
    cluster: String,
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Journal {
    /// `failover.jsonl` in this directory. Where it cannot be written the log has the same.
    pub(super) fn new(directory: &Path, cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            path: directory.join("failover.jsonl"),
            file: Mutex::new(None),
        }
    }

    /// Adds what was decided.
    pub(super) fn tell(&self, entry: Entry) {
        let Entry {
            kind,
            plan,
            text,
            alarm,
        } = entry;
        let name = plan.as_deref().unwrap_or_default();
        match alarm {
            true => warn!(cluster = self.cluster, plan = name, kind, "{text}"),
            false => info!(cluster = self.cluster, plan = name, kind, "{text}"),
        }
        self.write(&Line {
            kind,
            plan,
            text,
            ..Line::default()
        });
    }

    /// Adds what was done.
    pub(super) fn write(&self, line: &Line) {
        let at = OffsetDateTime::now_utc().format(&Rfc3339);
        let stamped = Stamped {
            at: at.unwrap_or_default(),
            cluster: &self.cluster,
            line,
        };
        let Ok(mut text) = serde_json::to_string(&stamped) else {
            return;
        };
        text.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            let opened = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&self.path);
            *file = opened.ok();
        }
        let written = file.as_mut().map(|file| file.write_all(text.as_bytes()));
        if !matches!(written, Some(Ok(()))) {
            *file = None;
        }
    }
}
