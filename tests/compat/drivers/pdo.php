<?php
// PHP's PDO with MySQL, in all its modes.
declare(strict_types=1);
require __DIR__ . '/common.php';

function connect(array $options = [], string $extra = ''): PDO
{
    global $host, $port, $user, $password, $schema;
    return new PDO("mysql:host=$host;port=$port;dbname=$schema;charset=utf8mb4$extra", $user, $password, $options);
}

function metadata(PDOStatement $statement): array
{
    $columns = [];
    for ($n = 0; $n < $statement->columnCount(); $n++) {
        $columns[] = $statement->getColumnMeta($n);
    }
    return $columns;
}

function fresh(PDO $db): void
{
    foreach (['compat' => 'utf8mb4', 'compat_other' => 'latin1'] as $name => $charset) {
        $db->exec("DROP DATABASE IF EXISTS $name");
        $db->exec("CREATE DATABASE $name CHARACTER SET $charset");
    }
    $db->exec('USE compat');
}

function results(PDOStatement $statement): void
{
    do {
        if ($statement->columnCount() > 0) {
            say('  columns', metadata($statement));
            foreach ($statement->fetchAll(PDO::FETCH_NUM) as $row) {
                say('  row', $row);
            }
        }
        say('  rows', $statement->rowCount(), $statement->errorInfo());
    } while ($statement->nextRowset());
}

/** The corpus; how each statement is run is the mode's. */
function corpus(PDO $db, string $flavor, bool $prepare): void
{
    foreach (statements($flavor) as $sql) {
        say($sql);
        try {
            if ($prepare) {
                if (!$statement = $db->prepare($sql)) {
                    say('  refused', $db->errorInfo());
                    continue;
                }
                $statement->execute();
            } else {
                $statement = $db->query($sql);
            }
            results($statement);
            $statement->closeCursor();
            say('  last id', $db->lastInsertId(), $db->inTransaction());
        } catch (PDOException $error) {
            say('  fails', $error->getCode(), $error->errorInfo, $error->getMessage(), $db->inTransaction());
        }
        unset($statement);
    }
}

$modes = [
    'emulated, buffered' => [PDO::ATTR_EMULATE_PREPARES => true, PDO::MYSQL_ATTR_USE_BUFFERED_QUERY => true],
    'emulated, unbuffered' => [PDO::ATTR_EMULATE_PREPARES => true, PDO::MYSQL_ATTR_USE_BUFFERED_QUERY => false],
    'native, buffered' => [PDO::ATTR_EMULATE_PREPARES => false, PDO::MYSQL_ATTR_USE_BUFFERED_QUERY => true],
    'native, unbuffered' => [PDO::ATTR_EMULATE_PREPARES => false, PDO::MYSQL_ATTR_USE_BUFFERED_QUERY => false],
];
foreach ($modes as $name => $options) {
    $db = connect($options);
    fresh($db);
    heading("corpus $name");
    corpus($db, $flavor, !$options[PDO::ATTR_EMULATE_PREPARES] || !$options[PDO::MYSQL_ATTR_USE_BUFFERED_QUERY]);
}
$setup = connect();
fresh($setup);

foreach ($modes as $name => $options) {
    heading("bound parameters, $name");
    $db = connect($options);
    $db->exec('DROP TABLE IF EXISTS p');
    $db->exec('CREATE TABLE p (id INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, u BIGINT UNSIGNED, d DECIMAL(20,5), f DOUBLE, s VARCHAR(100), b LONGBLOB, t DATETIME(6), o BOOL)');
    $insert = $db->prepare('INSERT INTO p (i, u, d, f, s, b, t, o) VALUES (:i, :u, :d, :f, :s, :b, :t, :o)');
    foreach ([
        [PHP_INT_MAX, '18446744073709551615', '123456789012345.54321', 3.25, "Grüße 'quoted' \\ 🎉", "\0\1\2\xff", '2024-05-06 07:08:09.123456', true],
        [PHP_INT_MIN, '0', '-0.00001', -1e100, '', '', '1000-01-01 00:00:00', false],
        [null, null, null, null, null, null, null, null],
    ] as [$i, $u, $d, $f, $s, $b, $t, $o]) {
        $insert->bindValue(':i', $i, $i === null ? PDO::PARAM_NULL : PDO::PARAM_INT);
        $insert->bindValue(':u', $u);
        $insert->bindValue(':d', $d);
        $insert->bindValue(':f', $f);
        $insert->bindValue(':s', $s, PDO::PARAM_STR | PDO::PARAM_STR_NATL);
        $stream = $b === null ? null : fopen('php://memory', 'r+');
        if ($stream) {
            fwrite($stream, str_repeat($b, 5000));
            rewind($stream);
        }
        $insert->bindValue(':b', $stream, PDO::PARAM_LOB);
        $insert->bindValue(':t', $t);
        $insert->bindValue(':o', $o, PDO::PARAM_BOOL);
        attempt('insert', fn () => [$insert->execute(), $insert->rowCount(), $db->lastInsertId()]);
    }
    $select = $db->prepare('SELECT id, i, u, d, f, s, MID(b, 1, 8) AS b, LENGTH(b) AS l, t, o FROM p WHERE id >= ? ORDER BY id');
    foreach ([1, '2', 99] as $from) {
        $select->execute([$from]);
        say('columns', metadata($select));
        foreach ($select->fetchAll(PDO::FETCH_ASSOC) as $row) {
            say('row', $row);
        }
        $select->closeCursor();
    }
    say('numbers', array_map(gettype(...), $db->query('SELECT 1, 1.5, 1e0, NULL, \'x\', CAST(5 AS UNSIGNED), 18446744073709551615')->fetchAll(PDO::FETCH_NUM)[0]));
    $lob = $db->prepare('SELECT b FROM p WHERE id = 1');
    $lob->execute();
    $lob->bindColumn(1, $content, PDO::PARAM_LOB);
    $lob->fetch(PDO::FETCH_BOUND);
    say('lob', is_resource($content) ? md5(stream_get_contents($content)) : md5((string) $content));
    $lob->closeCursor();
    foreach ([PDO::FETCH_ASSOC, PDO::FETCH_NUM, PDO::FETCH_BOTH, PDO::FETCH_OBJ, PDO::FETCH_NAMED, PDO::FETCH_KEY_PAIR, PDO::FETCH_COLUMN, PDO::FETCH_UNIQUE, PDO::FETCH_GROUP] as $mode) {
        attempt("fetch mode $mode", fn () => $db->query('SELECT id, i FROM p ORDER BY id')->fetchAll($mode));
    }
    attempt('mixed', fn () => $db->prepare('SELECT COUNT(*) FROM p WHERE s LIKE ? OR s = :x')->execute(['%', 'x']));
    $limit = $db->prepare('SELECT id FROM p ORDER BY id LIMIT ?');
    $limit->bindValue(1, 2, PDO::PARAM_INT);
    attempt('limit', fn () => [$limit->execute(), $limit->fetchAll(PDO::FETCH_COLUMN)]);
    $limit->closeCursor();
    attempt('limit as text', fn () => [$limit->execute(['1']), $limit->fetchAll(PDO::FETCH_COLUMN)]);
    $limit->closeCursor();
    attempt('twice', function () use ($db) { $in = $db->prepare('SELECT :a, :a'); $in->execute(['a' => 5]); return $in->fetchAll(PDO::FETCH_NUM); });
    attempt('too few', fn () => $db->prepare('SELECT ?, ?')->execute([1]));
    attempt('too many', fn () => $db->prepare('SELECT ?')->execute([1, 2]));
    attempt('bad table', fn () => $db->prepare('SELECT * FROM nothing WHERE a = ?')->execute([1]));
    attempt('duplicate', fn () => $db->prepare('INSERT INTO p (id) VALUES (?)')->execute([1]));
    attempt('several', fn () => $db->exec('UPDATE p SET f = 5; DELETE FROM p WHERE id = 3'));
    attempt('several results', function () use ($db) {
        $all = [];
        $statement = $db->query('SELECT 1; SELECT 2, 3; SELECT * FROM nothing; SELECT 4');
        do {
            $all[] = $statement->fetchAll(PDO::FETCH_NUM);
        } while ($statement->nextRowset());
        return $all;
    });
    $db = connect($options);
    attempt('procedure', function () use ($db) {
        $db->exec('DROP PROCEDURE IF EXISTS results');
        $db->exec('CREATE PROCEDURE results (n INT) BEGIN SELECT n; SELECT id FROM p WHERE id <= n ORDER BY id; UPDATE p SET f = 1; END');
        $all = [];
        $call = $db->prepare('CALL results(?)');
        $call->execute([2]);
        do {
            $all[] = [$call->columnCount(), $call->columnCount() ? $call->fetchAll(PDO::FETCH_NUM) : null, $call->rowCount()];
        } while ($call->nextRowset());
        return $all;
    });
    $db = connect($options);
    attempt('half a result', function () use ($db) {
        $half = $db->query('SELECT a.id FROM p a, p b, p c, p d, p e, p f');
        $half->fetch();
        $half->closeCursor();
        return $db->query('SELECT 1')->fetchAll();
    });
    attempt('two at once', function () use ($db) {
        $first = $db->query('SELECT id FROM p ORDER BY id');
        $first->fetch();
        return $db->query('SELECT 1')->fetchAll();
    });
    attempt('scrollable', fn () => $db->prepare('SELECT 1', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL])->execute());
    attempt('reused', function () use ($db) {
        $all = [];
        $statement = $db->prepare('SELECT ? + 0, ?');
        foreach ([[1, 'a'], ['2', 2], [null, 3.5]] as $arguments) {
            $statement->execute($arguments);
            $all[] = $statement->fetchAll(PDO::FETCH_NUM);
        }
        return $all;
    });
    attempt('after ALTER', function () use ($db) {
        $star = $db->prepare('SELECT * FROM p WHERE id = 1');
        $star->execute();
        $before = count($star->fetchAll(PDO::FETCH_NUM)[0]);
        $star->closeCursor();
        $db->exec('ALTER TABLE p DROP COLUMN b, ADD COLUMN c INT DEFAULT 4, ADD COLUMN e INT');
        $star->execute();
        return [$before, $star->fetchAll(PDO::FETCH_ASSOC)];
    });
}

heading('transactions');
$db = connect();
$other = connect();
$db->exec('CREATE TABLE tx (id INT PRIMARY KEY, v INT)');
$count = fn (PDO $on) => $on->query('SELECT COUNT(*) FROM tx')->fetchColumn();
say('begin', $db->beginTransaction(), $db->inTransaction());
$db->exec('INSERT INTO tx VALUES (1, 1)');
say('seen', $count($db), $count($other));
attempt('again', fn () => $db->beginTransaction());
say('commit', $db->commit(), $db->inTransaction(), $count($other));
attempt('commit nothing', fn () => $db->commit());
attempt('roll back nothing', fn () => $db->rollBack());
$db->beginTransaction();
$db->exec('INSERT INTO tx VALUES (2, 2)');
$db->exec('SAVEPOINT s');
$db->exec('INSERT INTO tx VALUES (3, 3)');
$db->exec('ROLLBACK TO s');
say('roll back', $count($db), $db->rollBack(), $count($db));
$db->exec('BEGIN');
say('by text', $db->inTransaction());
$db->exec('INSERT INTO tx VALUES (2, 2)');
$db->exec('ROLLBACK');
say('by text', $db->inTransaction(), $count($db));
$db->beginTransaction();
$db->exec('INSERT INTO tx VALUES (2, 2)');
$db->exec('CREATE TABLE implicit (a INT)');
say('implicit commit', $db->inTransaction(), $count($other));
attempt('commit', fn () => $db->commit());
$db->setAttribute(PDO::ATTR_AUTOCOMMIT, 0);
$db->exec('INSERT INTO tx VALUES (3, 3)');
say('without autocommit', $db->getAttribute(PDO::ATTR_AUTOCOMMIT), $db->inTransaction(), $count($other));
$db->setAttribute(PDO::ATTR_AUTOCOMMIT, 1);
say('with', $db->inTransaction(), $count($other));
$quick = connect([PDO::ATTR_AUTOCOMMIT => 0]);
$quick->exec('INSERT INTO tx VALUES (4, 4)');
unset($quick);
say('not committed', $count($db));
$other->exec('SET SESSION innodb_lock_wait_timeout = 1');
$db->beginTransaction();
$db->exec('UPDATE tx SET v = 9 WHERE id = 1');
$other->beginTransaction();
attempt('lock timeout', fn () => $other->exec('UPDATE tx SET v = 8 WHERE id = 1'));
say('still in it', $other->inTransaction());
$other->rollBack();
$db->rollBack();

heading('attributes');
foreach (['SERVER_VERSION', 'CONNECTION_STATUS', 'DRIVER_NAME', 'PERSISTENT', 'ERRMODE', 'CASE', 'EMULATE_PREPARES', 'DEFAULT_FETCH_MODE', 'STRINGIFY_FETCHES'] as $name) {
    attempt($name, fn () => $db->getAttribute(constant("PDO::ATTR_$name")));
}
say('info', preg_match('/^Uptime: \d+  Threads: \d+  Questions: \d+ /', $db->getAttribute(PDO::ATTR_SERVER_INFO)));
foreach ([
    'found rows' => [[PDO::MYSQL_ATTR_FOUND_ROWS => true], ''],
    'ignore space' => [[PDO::MYSQL_ATTR_IGNORE_SPACE => true], ''],
    'init command' => [[PDO::MYSQL_ATTR_INIT_COMMAND => "SET @init = 1, SESSION time_zone = '+01:00'"], ''],
    'no multi' => [[PDO::MYSQL_ATTR_MULTI_STATEMENTS => false], ''],
    'stringify' => [[PDO::ATTR_STRINGIFY_FETCHES => true, PDO::ATTR_EMULATE_PREPARES => false], ''],
    'latin1' => [[], ';charset=latin1'],
    'compress' => [[PDO::MYSQL_ATTR_COMPRESS => true], ''],
    'upper' => [[PDO::ATTR_CASE => PDO::CASE_UPPER], ''],
    'silent' => [[PDO::ATTR_ERRMODE => PDO::ERRMODE_SILENT], ''],
    'warning' => [[PDO::ATTR_ERRMODE => PDO::ERRMODE_WARNING], ''],
] as $name => [$options, $extra]) {
    heading($name);
    attempt('connects', function () use ($options, $extra) {
        $o = connect($options, $extra);
        $o->exec('UPDATE tx SET v = 5');
        say('affected', $o->exec('UPDATE tx SET v = 5'));
        say('row', $o->query('SELECT id, v, @init AS init, @@time_zone AS zone, @@character_set_client AS cs FROM tx ORDER BY id LIMIT 1')->fetchAll(PDO::FETCH_ASSOC));
        attempt('space', fn () => $o->query('SELECT COUNT (*) FROM tx')->fetchColumn());
        attempt('two', fn () => $o->exec('SELECT 1; SELECT 2'));
        attempt('error', fn () => [$o->exec('SELEKT'), $o->errorCode(), $o->errorInfo()]);
        return $o->quote("it's \\ \0 ü");
    });
}

heading('errors');
attempt('password', fn () => new PDO("mysql:host=$host;port=$port", $user, 'wrong'));
attempt('account', fn () => new PDO("mysql:host=$host;port=$port", 'nobody', ''));
attempt('schema', fn () => new PDO("mysql:host=$host;port=$port;dbname=no_such", $user, $password));
attempt('charset', fn () => new PDO("mysql:host=$host;port=$port;charset=klingon", $user, $password));
attempt('none', fn () => (new PDO("mysql:host=$host;port=$port", $user, $password))->query('SELECT DATABASE()')->fetchAll());
attempt('socket', fn () => (new PDO("mysql:unix_socket=$socket;dbname=$schema", $user, $password))->query('SELECT DATABASE()')->fetchColumn());
attempt('empty', fn () => $db->query(''));
attempt('warnings', function () use ($db) { $db->query('SELECT 1/0'); $db->query("SELECT CAST('x' AS SIGNED)"); return $db->query('SHOW WARNINGS')->fetchAll(PDO::FETCH_NUM); });

heading('persistent');
for ($round = 0; $round < 4; $round++) {
    $p = connect([PDO::ATTR_PERSISTENT => true]);
    say('state', $p->query('SELECT @left, @@time_zone, DATABASE(), @@autocommit')->fetch(PDO::FETCH_NUM), $p->inTransaction());
    $p->exec("SET @left = $round, SESSION time_zone = '+05:00'");
    if ($round === 1) {
        $p->beginTransaction();
        $p->exec('INSERT INTO tx VALUES (500, 0)');
    }
    unset($p);
}
say('left behind', $count($db));

heading('files');
$file = tempnam(sys_get_temp_dir(), 'compat');
file_put_contents($file, implode('', array_map(fn ($n) => "$n\t$n\n", range(10000, 30000))));
$local = connect([PDO::MYSQL_ATTR_LOCAL_INFILE => true]);
attempt('load', fn () => $local->exec("LOAD DATA LOCAL INFILE '$file' INTO TABLE tx"));
say('loaded', $count($db));
attempt('not allowed', fn () => $db->exec("LOAD DATA LOCAL INFILE '$file' INTO TABLE tx"));
attempt('missing', fn () => $local->exec("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE tx"));
unlink($file);

heading('large');
$big = random_bytes(1024);
$big = str_repeat($big, 17 << 10);
$db->exec('CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB)');
foreach ([true, false] as $id => $emulate) {
    $l = connect([PDO::ATTR_EMULATE_PREPARES => $emulate]);
    $insert = $l->prepare('INSERT INTO big VALUES (?, ?)');
    attempt('insert', fn () => $insert->execute([$id, $big]));
    $select = $l->prepare('SELECT b FROM big WHERE id = ?');
    $select->execute([$id]);
    say('same', $select->fetchColumn() === $big);
}
unset($big, $l, $insert, $select);
$db->exec('DROP TABLE big');

heading('read what was written');
$wrong = 0;
$native = connect([PDO::ATTR_EMULATE_PREPARES => false]);
$insert = $native->prepare('INSERT INTO tx VALUES (?, ?)');
$select = $native->prepare('SELECT v FROM tx WHERE id = ?');
for ($round = 0; $round < ROUNDS; $round++) {
    $insert->execute([$round + 1000, $round]);
    $select->execute([$round + 1000]);
    $wrong += (int) ($select->fetchColumn() !== $round);
    $wrong += (int) ((int) connect()->query("SELECT COUNT(*) FROM tx WHERE id = 1000 + $round")->fetchColumn() !== 1);
}
say('missed', $wrong);
