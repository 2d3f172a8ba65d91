//! The lexer and the classification: what every statement pays.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dbproxy::sql::{Classifier, Dialect, classify, digest_text};

const POINT: &str = "SELECT c FROM sbtest1 WHERE id=5021";

const ORM: &str = "select `users`.`id`, `users`.`name`, `users`.`email`, count(orders.id) as total from `users` \
    left join `orders` on `orders`.`user_id` = `users`.`id` where `users`.`active` = 1 and `orders`.`total` > 100.5 \
    order by total desc limit 20";

/// Of 200 bytes, as an application's library writes them.
const ORDINARY: &str = "SELECT u.id, u.name, u.email, COUNT(o.id) AS total FROM users u LEFT JOIN orders o ON \
    o.user_id = u.id WHERE u.active = 1 AND o.total > 100.5 AND u.country = 'France' GROUP BY u.id ORDER BY 5 LIMIT 20";

/// The two figures that have limits: a pass of lexer, digest and classification over 200 bytes, and with it the answer
/// that is known for the digest.
fn limits(c: &mut Criterion) {
    let dialect = Dialect::of(false, 80_408);
    let classifier = Classifier::new(1_000);
    let sql = ORDINARY.as_bytes();
    assert_eq!(sql.len(), 200);
    classifier.tables(sql, &classify(sql, dialect), dialect);
    let mut group = c.benchmark_group("200 bytes");
    group.bench_function("lexer, at most 400 ns", |b| {
        b.iter(|| classify(black_box(sql), black_box(dialect)));
    });
    group.bench_function("and a cached answer, at most 50 ns more", |b| {
        b.iter(|| {
            let class = classify(black_box(sql), black_box(dialect));
            classifier.tables(black_box(sql), &class, dialect)
        });
    });
    group.finish();
}

fn statements(c: &mut Criterion) {
    let dialect = Dialect::of(false, 80_408);
    let ids: Vec<String> = (1_000..2_000).map(|id| id.to_string()).collect();
    let list = format!("SELECT a FROM t WHERE id IN ({})", ids.join(", "));
    let insert = format!(
        "INSERT INTO t (a, b) VALUES {}",
        vec!["(1, 'some text of a row that is inserted')"; 2_000].join(", ")
    );
    let mut group = c.benchmark_group("classify");
    for (name, sql) in [
        ("point select, 35 bytes", POINT),
        ("query of 240 bytes", ORM),
        ("list of 1000", &list),
        ("insert of 2000 rows", &insert),
    ] {
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| classify(black_box(sql.as_bytes()), black_box(dialect)));
        });
    }
    group.finish();
    c.bench_function("digest text of 240 bytes", |b| {
        b.iter(|| digest_text(black_box(ORM.as_bytes()), dialect, 2048));
    });
}

criterion_group!(benches, limits, statements);
criterion_main!(benches);
