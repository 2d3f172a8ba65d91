//! What the proxy itself is asked: where a statement would go, and what it knows of the session.

use std::{ops::ControlFlow, time::Duration};

use bytes::BytesMut;
use dbproxy_proto::{
    capability::StatusFlags,
    resultset::{Column, put_columns, put_end, put_row},
};

use tokio::time::Instant;

use super::{Flow, Session, route::Tried, rules::Ruling, tables::Wording};
use crate::{
    config::Consistency,
    error::{Answer, Error},
    net::Peer,
    routing::{Reason, Route, Target},
    sql::{self, Facts, Kind, StatementClass, inquiry::Inquiry},
};

/// utf8mb4_general_ci, which both flavors have.
const UTF8: u16 = 45;

/// How long a position may take that has to be asked of the primary.
const PATIENCE: Duration = Duration::from_secs(5);

impl Session {
    /// The question to the proxy that a statement is, if it is one.
    pub(super) fn inquiry(&self, class: &StatementClass, text: &[u8]) -> Option<Inquiry> {
        let may_be = match class.kind {
            // What is to be explained may be several statements.
            Kind::Explain | Kind::Show | Kind::Multi => true,
            Kind::Read => class.facts.contains(Facts::SYSTEM_VARIABLE),
            _ => false,
        };
        may_be.then(|| sql::inquiry::parse(text, self.dialect))?
    }

    /// What others' reads must see to have seen everything that this session's must, in a column of this name.
    async fn tell_position(&mut self, name: &[u8]) -> Result<Flow, Error> {
        let consistency = match self.consistency() {
            Consistency::Eventual | Consistency::Strong => Consistency::User,
            consistency => consistency,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut news = self.context.topology.clone();
        let position = loop {
            let known = {
                let topology = news.borrow_and_update();
                self.scopes.position_of(consistency, &topology)
            };
            match known {
                Some(position) => break position,
                None if self.changes(&mut news, deadline).await? => {}
                None => {
                    let text = "dbproxy: the position of the last write is not known, since the primary does not tell its own";
                    return self.reply_error(&Answer::new(1105, b"HY000", text)).await;
                }
            }
        };
        let mut out = BytesMut::new();
        let name = String::from_utf8_lossy(name);
        self.put_table(&mut out, &[&*name], &[vec![Some(position)]]);
        self.reply(&out).await
    }

    /// Answers a question to the proxy. Nothing is asked of a server, and nothing changes.
    pub(super) async fn answer(&mut self, inquiry: Inquiry, text: &[u8]) -> Result<Flow, Error> {
        let mut out = BytesMut::new();
        match inquiry {
            Inquiry::Position(alias) => {
                let alias = alias.and_then(|alias| text.get(alias));
                let name = alias.unwrap_or(b"@@dbproxy_position");
                let unquoted = |byte: &u8| !matches!(byte, b'`' | b'"' | b'\'');
                let name: Vec<u8> = name.iter().copied().filter(unquoted).collect();
                return self.tell_position(&name).await;
            }
            Inquiry::Route(range) => {
                let statement = text.get(range).unwrap_or_default().trim_ascii();
                let explained = self.explain_route(statement).await;
                let (names, values): (Vec<_>, Vec<_>) = explained.into_iter().unzip();
                self.put_table(&mut out, &names, &[values]);
            }
            Inquiry::Rules | Inquiry::Firewall => {
                // They may say what somebody is watched or refused for.
                match self.may_kill().await? {
                    ControlFlow::Continue(true) => {}
                    ControlFlow::Continue(false) => {
                        let text = "Access denied; you need the SUPER or CONNECTION_ADMIN privilege to see \
                                    dbproxy's rules";
                        let answer = Answer::new(1227, b"42000", text);
                        return self.reply_error(&answer).await;
                    }
                    ControlFlow::Break(flow) => return Ok(flow),
                }
                if inquiry == Inquiry::Firewall {
                    let names = ["Rule", "State", "Hits", "Last_time", "Statement"];
                    self.put_table(&mut out, &names, &self.context.firewall.describe());
                } else {
                    let names = [
                        "Rule",
                        "Matches",
                        "Does",
                        "Hits",
                        "Last_match",
                        "Mirrored",
                        "Left_out",
                        "Failed",
                    ];
                    self.put_table(&mut out, &names, &self.rules.policy().describe());
                }
            }
            Inquiry::Pins => {
                let counts = self.context.registry.pins().describe();
                let rows = counts.into_iter().map(|(reason, started, lasting, held)| {
                    let seconds = format!("{:.1}", held.as_secs_f64());
                    let numbers = [started.to_string(), lasting.to_string(), seconds];
                    let values = [reason.to_string()].into_iter().chain(numbers);
                    values.map(Some).collect()
                });
                let rows: Vec<_> = rows.collect();
                self.put_table(&mut out, &["Reason", "Started", "Held", "Seconds"], &rows);
            }
            Inquiry::Session => {
                let rows = self.describe();
                let rows: Vec<_> = rows
                    .into_iter()
                    .map(|(name, value)| vec![Some(name.to_owned()), value])
                    .collect();
                self.put_table(&mut out, &["Name", "Value"], &rows);
            }
        }
        self.reply(&out).await
    }

    /// The words are those of `dbproxy explain`.
    async fn explain_route(&mut self, statement: &[u8]) -> Vec<(&'static str, Option<String>)> {
        let class = self.classify(statement);
        let counted = self.with_counts(&class, statement);
        let (statement, class) = match &counted {
            Some(changed) => (changed.as_slice(), self.classify(changed)),
            None => (statement, class),
        };
        let class = self.weighed(class, &self.effect_of(&class, statement));
        self.ruling = self.would_rule(statement, &class);
        let (home, refusal) = match self.would_depart(statement, &class) {
            Ok(home) => (home, None),
            Err(answer) => (None, Some(answer.message.to_string())),
        };
        let class = match home {
            Some(_) => self.classify(statement),
            None => class,
        };
        let class = self.look_up(class, statement, &self.wanted).await;
        let class = self.with_known_variables(class, statement);
        let mut columns = self.explain_route_here(statement, class, refusal);
        if home.is_some() {
            columns.push(("Cluster", Some(self.context.name.to_string())));
        }
        if let Some(home) = home {
            self.end_visit(home);
        }
        let ruling = self.ruling.take();
        if let Some((_, cluster)) = ruling.as_deref().and_then(Ruling::mirror) {
            columns.push(("Mirror", Some(cluster.to_owned())));
        }
        columns
    }

    fn explain_route_here(
        &self,
        statement: &[u8],
        class: StatementClass,
        refusal: Option<String>,
    ) -> Vec<(&'static str, Option<String>)> {
        let (route, would) = match self.breach(&class, statement) {
            Some(breach) => {
                let reason = Reason::Administration(breach.harm);
                (Route::new(Target::Nowhere, reason), None)
            }
            None => self.place(&class, Tried::default(), Wording::Text(statement)),
        };
        let rules = self.ruling.as_ref().map(|ruling| ruling.names());
        let topology = self.context.topology.borrow();
        let held = self.held.as_ref().map(|conn| conn.server());
        let (target, server) = match route.target {
            _ if refusal.is_some() => ("nowhere", None),
            Target::Primary => ("primary", topology.primary),
            Target::Replica(server) => ("replica", Some(server)),
            Target::Nowhere => ("nowhere", None),
            Target::Kept => {
                let kept = self.kept_here().map(|kept| kept.server);
                ("the connection in use", held.or(kept).or(topology.primary))
            }
        };
        let server = server.and_then(|server| topology.server(server));
        let observed = would.map(|would| match would.target {
            Target::Replica(server) => {
                let name = topology.server(server).map_or("", |server| &server.name);
                format!("replica {name}: {}", would.reason)
            }
            Target::Primary | Target::Kept | Target::Nowhere => "the same".to_owned(),
        });
        let tables = sql::tables(statement, self.dialect);
        let list = |names: Vec<String>| (!names.is_empty()).then(|| names.join(", "));
        let mut columns = vec![
            ("Target", Some(target.to_owned())),
            ("Server", server.map(|server| server.name.to_string())),
            (
                "Reason",
                Some(refusal.unwrap_or_else(|| route.reason.to_string())),
            ),
            ("Rules", rules),
            ("Class", Some(class.kind.to_string())),
            ("Reads", list(tables.read)),
            ("Writes", list(tables.written)),
            ("Digest", Some(format!("{:016x}", class.digest))),
        ];
        let told = sql::mentions(statement, &class, self.dialect);
        columns.extend(told.into_iter().map(|(label, text)| (label, Some(text))));
        if class.facts.contains(Facts::MULTI) && !self.wanted.multi_statements() {
            let refused = "by the server, error 1064: this client has not asked to send several statements at once";
            columns.push(("Refused", Some(refused.to_owned())));
        }
        if observed.is_some() {
            columns.push(("With mode route", observed));
        }
        columns
    }

    fn describe(&self) -> Vec<(&'static str, Option<String>)> {
        let topology = self.context.topology.borrow();
        let server = self.held.as_ref().map(|conn| conn.server());
        let server = server.and_then(|server| topology.server(server));
        let schema = self.wanted.schema();
        let client = match self.peer {
            Peer::Unix => "unix socket".to_owned(),
            Peer::Tcp(address) => address.to_string(),
        };
        let consistency = self.consistency().to_string();
        let mode = match self.context.observer {
            Some(_) => "observe: everything goes to the primary",
            None => "route",
        };
        let access = self.settings.access.map(|access| access.to_string());
        let access = access.unwrap_or_else(|| "auto".to_owned());
        let position = self.scopes.position(self.consistency());
        let is_set = |flag| {
            if self.status.contains(flag) {
                "yes"
            } else {
                "no"
            }
        };
        vec![
            ("id", Some(self.handle().id().to_string())),
            ("account", Some(self.login.account.to_string())),
            ("client", Some(client)),
            ("age", Some(format!("{} s", self.since.elapsed().as_secs()))),
            (
                "schema",
                schema.map(|name| String::from_utf8_lossy(name).into_owned()),
            ),
            ("server", server.map(|server| server.name.to_string())),
            ("pin", self.pins.first().map(|pin| pin.to_string())),
            ("pins", self.pins.describe()),
            (
                "transaction",
                Some(is_set(StatusFlags::IN_TRANS).to_owned()),
            ),
            (
                "autocommit",
                Some(is_set(StatusFlags::AUTOCOMMIT).to_owned()),
            ),
            ("mode", Some(mode.to_owned())),
            ("access_mode", Some(access)),
            ("consistency", Some(consistency)),
            (
                "max_lag",
                self.settings.max_lag.map(|millis| format!("{millis}ms")),
            ),
            ("unknown_hints", Some(self.unknown_hints.to_string())),
            ("position", (!position.is_empty()).then_some(position)),
        ]
    }

    pub(super) fn put_table(
        &self,
        out: &mut BytesMut,
        names: &[&str],
        rows: &[Vec<Option<String>>],
    ) {
        let mut seq = 1;
        let columns: Vec<_> = names
            .iter()
            .map(|name| Column::text(name.as_bytes(), UTF8))
            .collect();
        put_columns(out, &mut seq, &columns, self.status, self.capabilities);
        for row in rows {
            let values = row.iter().map(|value| value.as_deref().map(str::as_bytes));
            put_row(out, &mut seq, values);
        }
        put_end(out, &mut seq, self.status, 0, self.capabilities);
    }
}
