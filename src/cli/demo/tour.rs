//! The guided tour: statements that show what the proxy does, and whether it did.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::cluster::{self, Cluster, LaunchError};
use super::proxy::{Proxy, Routed};
use crate::cli::Failure;

/// How long the replicas may take to serve reads again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reader of the shop asks in most steps; the second column is the server's own word for who it is.
const ORDERS: &str =
    "SELECT COUNT(*) AS orders, (SELECT name FROM test.where_am_i) AS answered_by FROM shop.orders";

/// The shop: small enough to be read, large enough for a join.
const SHOP: &[&str] = &[
    "CREATE DATABASE shop CHARACTER SET utf8mb4",
    "CREATE TABLE shop.customers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL, city VARCHAR(50))",
    "CREATE TABLE shop.products (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL, \
     price DECIMAL(8,2) NOT NULL, stock INT NOT NULL)",
    "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL, product INT NOT NULL, \
     quantity INT NOT NULL, placed TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (customer))",
    "INSERT INTO shop.customers (name, city) VALUES ('Ada', 'London'), ('Emmy', 'Erlangen'), ('Grace', 'New York'), \
     ('Kurt', 'Vienna'), ('Sofia', 'Stockholm')",
    "INSERT INTO shop.products (name, price, stock) VALUES ('bread', 2.20, 40), ('cheese', 7.50, 12), \
     ('coffee', 9.90, 25), ('jam', 3.10, 60), ('tea', 5.40, 33)",
    "INSERT INTO shop.orders (customer, product, quantity) SELECT c.id, p.id, (c.id * p.id) % 4 + 1 \
     FROM shop.customers c, shop.products p",
];

/// Loads the data set on the primary and waits until the replicas have it.
pub(super) async fn load(cluster: &Cluster) -> Result<(), LaunchError> {
    for sql in SHOP {
        cluster.primary().run(sql).await?;
    }
    cluster.caught_up().await
}

/// Where a statement has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Primary,
    Replica,
    /// Either is right; what counts is the answer.
    Anywhere,
}

/// A guide with one connection through the proxy.
pub(super) struct Tour<'a> {
    cluster: &'a Cluster,
    proxy: &'a Proxy,
    out: &'a mut dyn Write,
    conn: Conn,
    logged: u64,
    wrong: Vec<String>,
}

impl<'a> Tour<'a> {
    /// Begins the tour.
    pub(super) async fn new(
        cluster: &'a Cluster,
        proxy: &'a Proxy,
        out: &'a mut dyn Write,
    ) -> Result<Self, Failure> {
        let conn = proxy.connect().await?;
        let mut tour = Self {
            cluster,
            proxy,
            out,
            conn,
            logged: 0,
            wrong: Vec::new(),
        };
        tour.both_replicas().await?;
        Ok(tour)
    }

    /// Shows everything; returns what was not as expected.
    pub(super) async fn run(mut self) -> Result<Vec<String>, Failure> {
        self.reads_and_writes().await?;
        self.transaction().await?;
        self.prepared().await?;
        self.state().await?;
        self.replica_lost().await?;
        Ok(self.wrong)
    }

    async fn reads_and_writes(&mut self) -> Result<(), Failure> {
        self.chapter("Reads go to a replica, writes to the primary")?;
        self.show(
            Place::Replica,
            "SELECT name, price FROM shop.products WHERE price < 6 ORDER BY price",
        )
        .await?;
        let before = self.show(Place::Replica, ORDERS).await?;
        self.show(
            Place::Primary,
            "INSERT INTO shop.orders (customer, product, quantity) VALUES (1, 3, 2)",
        )
        .await?;
        self.chapter("Nobody reads less than what he wrote: a replica that does not have it yet is waited for, or passed over")?;
        let after = self.show(Place::Anywhere, ORDERS).await?;
        self.expect(
            "the new order is counted",
            count(&after) == count(&before) + 1,
        );
        let mut fresh = self.proxy.connect().await?;
        std::mem::swap(&mut self.conn, &mut fresh);
        self.note("the same on a new connection of the same account, as an application's next request makes one")?;
        let again = self.show(Place::Anywhere, ORDERS).await?;
        self.expect(
            "the new order is counted on a new connection",
            count(&again) == count(&after),
        );
        self.cluster.caught_up().await?;
        self.note("the replicas have it by now; as soon as the proxy has seen that, they serve the account again")?;
        self.both_replicas().await?;
        self.show(Place::Replica, ORDERS).await?;
        self.chapter("A read that locks is no read, and a hint may ask for the primary")?;
        self.show(
            Place::Primary,
            "SELECT stock FROM shop.products WHERE id = 2 FOR UPDATE",
        )
        .await?;
        self.show(
            Place::Primary,
            "/* dbproxy: primary */ SELECT stock FROM shop.products WHERE id = 2",
        )
        .await?;
        Ok(())
    }

    async fn transaction(&mut self) -> Result<(), Failure> {
        self.chapter("A transaction stays on one connection to the primary, its reads too")?;
        self.show(Place::Primary, "START TRANSACTION").await?;
        self.show(
            Place::Primary,
            "SELECT stock FROM shop.products WHERE id = 3",
        )
        .await?;
        self.show(
            Place::Primary,
            "UPDATE shop.products SET stock = stock - 2 WHERE id = 3",
        )
        .await?;
        self.show(Place::Primary, "COMMIT").await?;
        self.both_replicas().await?;
        Ok(())
    }

    async fn prepared(&mut self) -> Result<(), Failure> {
        self.chapter("Prepared statements go by the same rules, on whichever server runs them")?;
        let select = "SELECT c.name, COUNT(*) AS orders FROM shop.customers c JOIN shop.orders o ON o.customer = c.id \
                      WHERE c.city = ? GROUP BY c.id, c.name";
        self.show_prepared(Place::Replica, select, vec!["Vienna".into()])
            .await?;
        self.show_prepared(Place::Replica, select, vec!["Erlangen".into()])
            .await?;
        let update = "UPDATE shop.products SET price = price + ? WHERE id = ?";
        self.show_prepared(Place::Primary, update, vec!["0.10".into(), 1.into()])
            .await?;
        self.both_replicas().await
    }

    async fn state(&mut self) -> Result<(), Failure> {
        self.chapter("What the session has set holds wherever its next statement runs")?;
        self.show(Place::Anywhere, "SET NAMES latin1").await?;
        self.show(Place::Anywhere, "SET time_zone = '+03:00'")
            .await?;
        let sql = "SELECT CHARSET('x') AS charset, CAST(FROM_UNIXTIME(0) AS CHAR) AS epoch, name AS answered_by \
                   FROM test.where_am_i";
        let rows = self.show(Place::Replica, sql).await?;
        let seen = rows
            .first()
            .map(|row| (text(row, "charset"), text(row, "epoch")));
        let wanted = ("latin1".to_owned(), "1970-01-01 03:00:00".to_owned());
        self.expect(
            "character set and time zone are carried to the replica",
            seen == Some(wanted),
        );
        Ok(())
    }

    async fn replica_lost(&mut self) -> Result<(), Failure> {
        let Some(lost) = self.cluster.server("db3") else {
            return Ok(());
        };
        self.chapter("A replica is killed: its reads go elsewhere, and nobody sees an error")?;
        lost.kill9();
        self.note("kill -9 db3")?;
        for _ in 0..3 {
            // Who has read from the one that is lost reads nothing older: it may be the primary's turn.
            let rows = self.show(Place::Anywhere, ORDERS).await?;
            let answered = rows.first().map(|row| text(row, "answered_by"));
            self.expect(
                "one that is left answers",
                matches!(answered.as_deref(), Some("db1" | "db2")),
            );
        }
        lost.restart().await?;
        self.note("db3 starts again, catches up, and serves reads again")?;
        self.both_replicas().await
    }

    /// Waits, without a word, until both replicas serve this account's reads.
    async fn both_replicas(&mut self) -> Result<(), Failure> {
        let conn = &mut self.conn;
        let replicas = self.cluster.replicas().len();
        let mut seen = BTreeSet::new();
        cluster::until(PATIENCE, "both replicas to serve reads", async || {
            let sql = "SELECT name FROM test.where_am_i";
            let name: Option<String> = conn
                .query_first(sql)
                .await
                .map_err(|error| LaunchError::Statement(sql.into(), error))?;
            seen.extend(name.filter(|name| name != "db1"));
            Ok(seen.len() == replicas)
        })
        .await?;
        self.logged = self.proxy.routed(self.conn.id(), self.logged).1;
        Ok(())
    }

    async fn show(&mut self, place: Place, sql: &str) -> Result<Vec<Row>, Failure> {
        let result = self.conn.query(sql).await;
        let rows = result.map_err(|error| LaunchError::Statement(sql.to_owned(), error))?;
        self.report(place, sql, rows)
    }

    async fn show_prepared(
        &mut self,
        place: Place,
        sql: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, Failure> {
        let mut shown = format!("{sql}   [");
        for (number, parameter) in parameters.iter().enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            let _ = write!(shown, "{separator}{}", parameter.as_sql(false));
        }
        shown.push(']');
        let result = self.conn.exec(sql, parameters).await;
        let rows = result.map_err(|error| LaunchError::Statement(sql.to_owned(), error))?;
        self.report(place, &shown, rows)
    }

    /// Prints a statement, its answer, and where it went and why.
    fn report(&mut self, place: Place, sql: &str, rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
        let (routed, end) = self.proxy.routed(self.conn.id(), self.logged);
        self.logged = end;
        writeln!(self.out, "\n  {sql}")?;
        for row in &rows {
            writeln!(self.out, "      {}", shown(row))?;
        }
        match routed {
            Some(Routed { server, reason }) => {
                let primary = server == "db1";
                let role = if primary { "primary" } else { "replica" };
                writeln!(self.out, "    -> {server} ({role}): {reason}")?;
                let right = match place {
                    Place::Primary => primary,
                    Place::Replica => !primary,
                    Place::Anywhere => true,
                };
                self.expect(&format!("{sql}: on {}", role_of(place)), right);
                if let Some(name) = rows
                    .first()
                    .map(|row| text(row, "answered_by"))
                    .filter(|name| !name.is_empty())
                {
                    self.expect(&format!("{sql}: answered by {server}"), name == server);
                }
            }
            None if place == Place::Anywhere => {
                writeln!(self.out, "    -> kept by the proxy for the next statement")?
            }
            None => {
                writeln!(self.out, "    -> not in the proxy's log")?;
                self.wrong.push(format!("{sql}: not in the proxy's log"));
            }
        }
        Ok(rows)
    }

    fn chapter(&mut self, title: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "\n{title}")?)
    }

    fn note(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "\n  ({text})")?)
    }

    fn expect(&mut self, what: &str, right: bool) {
        if !right {
            self.wrong.push(what.to_owned());
        }
    }
}

fn role_of(place: Place) -> &'static str {
    match place {
        Place::Primary => "the primary",
        Place::Replica => "a replica",
        Place::Anywhere => "any server",
    }
}

/// The number in the column `orders`.
fn count(rows: &[Row]) -> i64 {
    rows.first()
        .and_then(|row| row.get("orders"))
        .unwrap_or_default()
}

/// The column of that name as text, empty without it.
fn text(row: &Row, column: &str) -> String {
    let has = row
        .columns_ref()
        .iter()
        .any(|candidate| candidate.name_str() == column);
    if has {
        row.get(column).unwrap_or_default()
    } else {
        String::new()
    }
}

/// A row on one line: `name = value, ...`.
fn shown(row: &Row) -> String {
    let columns = row.columns_ref().iter().enumerate();
    let fields = columns.map(|(index, column)| {
        let value = match row.as_ref(index) {
            Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(value) => value.as_sql(false),
            None => String::new(),
        };
        format!("{} = {value}", column.name_str())
    });
    fields.collect::<Vec<_>>().join(", ")
}
