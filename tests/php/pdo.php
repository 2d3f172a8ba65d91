<?php
require __DIR__ . '/common.php';

$dsn = "mysql:host=$host;port=$port;dbname=$schema;charset=utf8mb4";
$connect = fn (array $options = []) => new PDO($dsn, $user, $password, $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::MYSQL_ATTR_COMPRESS => $compressed]);

$db = $connect();
$db->exec('CREATE TABLE shop (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100) CHARACTER SET utf8mb4, price DOUBLE, tags JSON NULL)');
say('driver', $db->getAttribute(PDO::ATTR_DRIVER_NAME));

foreach ([true, false] as $emulated) {
    foreach ([true, false] as $buffered) {
        say('emulated, buffered', [$emulated, $buffered]);
        $db = $connect([PDO::ATTR_EMULATE_PREPARES => $emulated, PDO::MYSQL_ATTR_USE_BUFFERED_QUERY => $buffered]);
        $db->exec('TRUNCATE shop');
        $insert = $db->prepare('INSERT INTO shop (name, price, tags) VALUES (:name, :price, :tags)');
        foreach ([["Käse", 3.5, '[1]'], ["O'Brien \\ \"x\"", null, null], ["🍞", 1e10, '{"a": null}']] as [$name, $price, $tags]) {
            $insert->execute(compact('name', 'price', 'tags'));
            say('inserted', [$insert->rowCount(), $db->lastInsertId()]);
        }
        $select = $db->prepare('SELECT id, name, price FROM shop WHERE id >= ? ORDER BY id LIMIT ?');
        $select->bindValue(1, 1, PDO::PARAM_INT);
        $select->bindValue(2, 2, PDO::PARAM_INT);
        $select->execute();
        say('rows', $select->fetchAll(PDO::FETCH_ASSOC));
        $select->execute();
        say('one', $select->fetch(PDO::FETCH_NUM));
        $select->closeCursor();
        $select = $db->query('SELECT name FROM shop ORDER BY id');
        say('column', $select->fetchAll(PDO::FETCH_COLUMN));
        say('meta', array_intersect_key($db->query('SELECT price FROM shop LIMIT 1')->getColumnMeta(0), ['name' => 1, 'native_type' => 1, 'table' => 1]));
        unset($select);
        $update = $db->prepare('UPDATE shop SET price = ? WHERE id <= ?');
        $update->execute([9.5, 2]);
        say('updated', $update->rowCount());
        for ($round = 0; $round < 30; $round++) {
            $sum = $db->prepare("SELECT $round + ? AS s");
            $sum->execute([1]);
            $rows = $sum->fetchAll();
            if ((int) $rows[0]['s'] !== $round + 1) {
                say('wrong', $rows);
            }
        }
        say('in a transaction', [$db->beginTransaction(), $db->inTransaction()]);
        $db->exec("INSERT INTO shop (name) VALUES ('never')");
        say('inside', $db->query('SELECT COUNT(*) FROM shop')->fetchAll(PDO::FETCH_COLUMN));
        say('rolled back', [$db->rollBack(), $db->inTransaction()]);
        say('after', $db->query('SELECT COUNT(*) FROM shop')->fetchAll(PDO::FETCH_COLUMN));
        $db->beginTransaction();
        $db->exec("INSERT INTO shop (name) VALUES ('kept')");
        $db->commit();
        say('after', $db->query('SELECT COUNT(*) FROM shop')->fetchAll(PDO::FETCH_COLUMN));
        fails('duplicate', fn () => $db->exec("INSERT INTO shop (id, name) VALUES (1, 'x')"));
        fails('table', fn () => $db->query('SELECT * FROM nothing'));
        fails('table, prepared', fn () => $db->prepare('SELECT * FROM nothing WHERE a = ?')->execute([1]));
        fails('parameters', fn () => $db->prepare('SELECT ? + ?')->execute([1]));
        say('still alive', $db->query('SELECT 1 + 1')->fetchAll(PDO::FETCH_COLUMN));
        if ($emulated && $buffered) {
            $several = $db->query("SELECT 1; SELECT name FROM shop WHERE id = 1; INSERT INTO shop (name) VALUES ('several')");
            do {
                say('result', $several->columnCount() ? $several->fetchAll(PDO::FETCH_NUM) : $several->rowCount());
            } while ($several->nextRowset());
            $several->closeCursor();
        }
        $db = null;
    }
}

$db = $connect([PDO::MYSQL_ATTR_INIT_COMMAND => "SET NAMES utf8mb4, time_zone = '+02:00', SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'"]);
say('from the first command', $db->query('SELECT "name", FROM_UNIXTIME(0) FROM shop WHERE id = 1')->fetchAll(PDO::FETCH_NUM));
$db = $connect([PDO::MYSQL_ATTR_FOUND_ROWS => true]);
say('rows found', $db->exec('UPDATE shop SET price = price'));
$db = $connect();
say('rows changed', $db->exec('UPDATE shop SET price = price'));
say('typed', $connect([PDO::ATTR_EMULATE_PREPARES => false])->query('SELECT 1, 1.5, "x", NULL, 18446744073709551615')->fetchAll(PDO::FETCH_NUM));

say('persistent');
for ($round = 0; $round < 5; $round++) {
    $p = $connect([PDO::ATTR_PERSISTENT => true]);
    $s = $p->prepare('SELECT COUNT(*) FROM shop WHERE id > ?');
    $s->execute([0]);
    say('count', $s->fetchAll(PDO::FETCH_COLUMN));
    $p->beginTransaction();
    $p->exec("INSERT INTO shop (name) VALUES ('persistent')");
    $p->rollBack();
    unset($p, $s);
}

say('prepared settings of the proxy');
$p = $connect([PDO::ATTR_EMULATE_PREPARES => false]);
$p->prepare("SET @dbproxy_consistency = 'strong'")->execute();
$p->prepare('SET @dbproxy_consistency = ?')->execute(['strong']);
say('still there', $p->query('SELECT COUNT(*) FROM shop')->fetchColumn());

say('unix socket');
$s = new PDO("mysql:unix_socket=$socket;dbname=$schema", $user, $password);
say('there', $s->query('SELECT COUNT(*) FROM shop')->fetchColumn());

say('own writes on new connections');
for ($round = 0; $round < 30; $round++) {
    $connect()->exec("INSERT INTO shop (name) VALUES ('own $round')");
    $seen = $connect()->query("SELECT COUNT(*) FROM shop WHERE name = 'own $round'")->fetchColumn();
    if ((int) $seen !== 1) {
        say('not seen', $round);
    }
}
fails('password', fn () => new PDO($dsn, $user, 'wrong'));
