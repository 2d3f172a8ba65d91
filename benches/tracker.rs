//! Following responses: what the relay pays per result on top of moving its bytes.

#![allow(missing_docs)]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dbproxy_proto::codec::put_lenenc_bytes;
use dbproxy_proto::reply::{OkHeader, OkPacket, put_ok};
use dbproxy_proto::response::{Event, Expect, ResponseTracker};
use dbproxy_proto::resultset::{Column, put_columns, put_end, put_row};
use dbproxy_proto::track::Change;
use dbproxy_proto::{Capabilities, StatusFlags};

const ROWS: usize = 1000;

fn caps() -> Capabilities {
    Capabilities::PROTOCOL_41 | Capabilities::SESSION_TRACK | Capabilities::DEPRECATE_EOF
}

fn result(rows: usize) -> BytesMut {
    let (mut out, mut seq) = (BytesMut::new(), 1);
    let status = StatusFlags::AUTOCOMMIT;
    put_columns(
        &mut out,
        &mut seq,
        &[Column::text(b"c", 45)],
        status,
        caps(),
    );
    for _ in 0..rows {
        put_row(&mut out, &mut seq, [Some(&[b'x'; 99][..])]);
    }
    put_end(&mut out, &mut seq, status, 0, caps());
    out
}

fn follow(bytes: &[u8]) -> u64 {
    let mut tracker = ResponseTracker::new(Expect::Query, caps());
    let mut rest = bytes;
    while !tracker.is_done() {
        let len = match tracker.next(rest) {
            Ok(Event::Data { len } | Event::Ok { len, .. } | Event::Eof { len, .. }) => len,
            other => unreachable!("{other:?}"),
        };
        rest = rest.get(len..).unwrap_or_default();
    }
    tracker.rows()
}

fn responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tracker");
    let result = result(ROWS);
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("1000 rows of 100 bytes", |bencher| {
        bencher.iter(|| assert_eq!(follow(black_box(&result)), ROWS as u64));
    });

    let one = self::result(1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("point select", |bencher| {
        bencher.iter(|| follow(black_box(&one)));
    });

    let mut state = BytesMut::from(&b"\x03"[..]);
    let mut gtid = BytesMut::from(&b"\0"[..]);
    put_lenenc_bytes(&mut gtid, b"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-1000023");
    put_lenenc_bytes(&mut state, &gtid);
    let mut write = BytesMut::new();
    let packet = OkPacket {
        affected_rows: 1,
        last_insert_id: 123_456,
        status: StatusFlags::AUTOCOMMIT | StatusFlags::SESSION_STATE_CHANGED,
        session_state: &state,
        ..OkPacket::default()
    };
    put_ok(&mut write, &mut 1, &packet, OkHeader::Ok, caps());
    group.bench_function("OK packet with GTID", |bencher| {
        bencher.iter(|| {
            let mut tracker = ResponseTracker::new(Expect::Query, caps());
            let Ok(Event::Ok { packet, .. }) = tracker.next(black_box(&write)) else {
                unreachable!()
            };
            packet
                .changes()
                .any(|change| matches!(change, Ok(Change::Gtids(_))))
        });
    });
    group.finish();
}

criterion_group!(benches, responses);
criterion_main!(benches);
