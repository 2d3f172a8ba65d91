<?php
require __DIR__ . '/common.php';

$db = mysqli_init();
$db->options(MYSQLI_OPT_INT_AND_FLOAT_NATIVE, 1);
$db->options(MYSQLI_OPT_LOCAL_INFILE, 1);
$db->real_connect($host, $user, $password, $schema, $port, null, $flags);
say('server', [$db->server_version, explode('-', $db->server_info)[0], $db->protocol_version]);
say('charset', $db->character_set_name());
$db->set_charset('utf8mb4');
say('charset', $db->character_set_name());
say('ping', @$db->ping());
say('stat', str_starts_with($db->stat(), 'Uptime: '));

$db->query('CREATE TABLE shop (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100) CHARACTER SET utf8mb4, price DECIMAL(8,2), sold DATETIME NULL, picture LONGBLOB)');
$db->query("INSERT INTO shop (name, price) VALUES ('Käse', 3.50), ('Brot 🍞', 2.25), ('Milch', 1.10)");
say('inserted', [$db->affected_rows, $db->insert_id, $db->info]);
say('rows', $db->query('SELECT id, name, price, sold FROM shop ORDER BY id')->fetch_all(MYSQLI_ASSOC));
say('update', [$db->query('UPDATE shop SET price = price + 1 WHERE id < 3'), $db->affected_rows, $db->info]);
say('count', $db->query('SELECT COUNT(*) AS c FROM shop')->fetch_object());

$result = $db->query('SELECT id, name FROM shop ORDER BY id');
say('fields', array_map(fn ($f) => [$f->name, $f->orgname, $f->table, $f->type, $f->flags, $f->length], $result->fetch_fields()));
$result->data_seek(1);
say('seek', $result->fetch_row());
$result->free();

say('unbuffered');
$result = $db->query('SELECT a.id, b.name FROM shop a, shop b, shop c, shop d, shop e ORDER BY 1, 2', MYSQLI_USE_RESULT);
$seen = 0;
while ($row = $result->fetch_row()) {
    $seen++;
}
$result->free();
say('seen', $seen);
$result = $db->query('SELECT a.id FROM shop a, shop b, shop c', MYSQLI_USE_RESULT);
$result->fetch_row();
$result->free();
say('after a result half read', $db->query('SELECT 1 + 1')->fetch_row());

say('prepared');
$insert = $db->prepare('INSERT INTO shop (name, price, picture) VALUES (?, ?, ?)');
$name = 'Wurst';
$price = 4.75;
$picture = null;
$insert->bind_param('sdb', $name, $price, $picture);
for ($part = 0; $part < 4; $part++) {
    $insert->send_long_data(2, str_repeat(chr(65 + $part), 50000));
}
$insert->execute();
say('inserted', [$insert->affected_rows, $insert->insert_id]);
$name = 'Ei';
$insert->execute();
say('inserted', [$insert->affected_rows, $insert->insert_id]);
$insert->close();
$select = $db->prepare('SELECT id, name, price, LENGTH(picture), picture IS NULL FROM shop WHERE id > ? AND name <> ? ORDER BY id');
foreach ([[0, ''], [3, 'Ei'], [99, '']] as [$id, $not]) {
    $select->bind_param('is', $id, $not);
    $select->execute();
    say('selected', $select->get_result()->fetch_all());
}
$select->execute([2, 'Milch']);
$select->bind_result($a, $b, $c, $d, $e);
while ($select->fetch()) {
    say('bound', [$a, $b, $c, $d, $e]);
}
$select->close();
$select = $db->prepare('SELECT id FROM shop ORDER BY id');
$select->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
$select->execute();
$select->bind_result($a);
$seen = [];
while ($select->fetch()) {
    $seen[] = $a;
}
say('through a cursor', $seen);
$select->close();

say('transactions');
$db->begin_transaction();
$db->query("INSERT INTO shop (name, price) VALUES ('never', 0)");
say('inside', $db->query('SELECT COUNT(*) FROM shop')->fetch_row());
$db->rollback();
say('after rollback', $db->query('SELECT COUNT(*) FROM shop')->fetch_row());
$db->autocommit(false);
$db->query("INSERT INTO shop (name, price) VALUES ('kept', 0)");
$db->commit();
$db->autocommit(true);
say('after commit', $db->query('SELECT COUNT(*) FROM shop')->fetch_row());
$db->begin_transaction(MYSQLI_TRANS_START_READ_ONLY);
fails('write in a read-only transaction', fn () => $db->query('DELETE FROM shop'));
$db->rollback();
$db->begin_transaction();
$db->query('UPDATE shop SET price = 100 WHERE id = 1');
$db->savepoint('here');
$db->query('UPDATE shop SET price = 200 WHERE id = 1');
$db->query('ROLLBACK TO here');
$db->commit();
say('savepoint', $db->query('SELECT price FROM shop WHERE id = 1')->fetch_row());

say('several statements');
$db->multi_query("SELECT 1; INSERT INTO shop (name, price) VALUES ('multi', 1); SELECT name FROM shop WHERE name = 'multi'; UPDATE shop SET price = 2 WHERE name = 'multi'");
do {
    $result = $db->store_result();
    say('result', $result ? $result->fetch_all() : [$db->affected_rows, $db->insert_id > 0]);
} while ($db->more_results() && $db->next_result());
$db->multi_query('SELECT 1; SELECT * FROM nothing; SELECT 3');
say('first', $db->store_result()->fetch_all());
fails('second', fn () => $db->next_result());
$db->query('CREATE PROCEDURE both_results (IN n INT) BEGIN SELECT n; SELECT id FROM shop WHERE id <= n ORDER BY id; END');
$db->multi_query('CALL both_results(3)');
do {
    $result = $db->store_result();
    say('call', $result ? $result->fetch_all() : 'done');
} while ($db->more_results() && $db->next_result());
$call = $db->prepare('CALL both_results(?)');
$call->execute([2]);
do {
    $result = $call->get_result();
    say('prepared call', $result ? $result->fetch_all() : 'done');
} while ($call->more_results() && $call->next_result());
$call->close();

say('errors');
fails('syntax', fn () => $db->query('SELEKT 1'));
fails('table', fn () => $db->query('SELECT * FROM nothing'));
fails('duplicate', fn () => $db->query("INSERT INTO shop (id, name) VALUES (1, 'x')"));
fails('prepare', fn () => $db->prepare('SELECT * FROM nothing WHERE a = ?'));
fails('schema', fn () => $db->select_db('no_such_schema_here'));
fails('password', fn () => new mysqli($host, $user, 'wrong', $schema, $port));
$db->query("SET SESSION sql_mode = ''");
$db->query("INSERT INTO shop (name, price) VALUES ('cheap', 'not a number')");
say('warnings', [$db->warning_count, $db->query('SHOW WARNINGS')->fetch_all()]);

say('files');
$file = tempnam(sys_get_temp_dir(), 'load');
file_put_contents($file, "loaded one\t1.5\nloaded two\t2.5\n");
$db->query("LOAD DATA LOCAL INFILE '" . $db->real_escape_string($file) . "' INTO TABLE shop (name, price)");
say('loaded', [$db->affected_rows, $db->info]);
unlink($file);

say('another user and back');
$db->query('SET @mine = 1');
$db->change_user($user, $password, $schema);
say('forgotten', $db->query('SELECT @mine')->fetch_row());
say('schema', $db->query('SELECT DATABASE()')->fetch_row());

say('persistent');
for ($round = 0; $round < 5; $round++) {
    $p = new mysqli('p:' . $host, $user, $password, $schema, $port);
    say('state left', $p->query('SELECT @left')->fetch_row());
    $p->query("SET @left = 'left', SESSION time_zone = '+05:00'");
    $p->query('START TRANSACTION');
    $p->query("INSERT INTO shop (name, price) VALUES ('persistent', 0)");
    say('inside', $p->query("SELECT COUNT(*) FROM shop WHERE name = 'persistent'")->fetch_row());
    $p->close();
}

say('unix socket');
$s = new mysqli('localhost', $user, $password, $schema, 0, $socket);
say('there', $s->query('SELECT COUNT(*) > 0 FROM shop')->fetch_row());
$s->close();
$id = $db->thread_id;
$killer = new mysqli($host, $user, $password, $schema, $port);
$killer->query("KILL $id");
// The end may be noticed with a later statement, and which of several errors tells it is a matter of time.
try {
    for ($try = 0; $try < 1000; $try++) {
        @$db->query('SELECT 1');
    }
    say('killed, and still there');
} catch (mysqli_sql_exception) {
    say('killed');
}
