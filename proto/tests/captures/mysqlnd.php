<?php // What PHP does over one connection: php mysqlnd.php PORT
function all(mysqli $db, string $sql): void
{
    $db->multi_query($sql);
    do {
        if ($result = $db->store_result()) {
            $result->free();
        }
    } while ($db->more_results() && $db->next_result());
}

mysqli_report(MYSQLI_REPORT_OFF);
$db = mysqli_init();
$db->options(MYSQLI_OPT_LOCAL_INFILE, true);
$db->real_connect('127.0.0.1', 'app', 'secret', 'shop', (int) $argv[1]);
$db->set_charset('utf8mb4');
$db->query('SELECT id, name FROM item ORDER BY id')->fetch_all();
all($db, 'SELECT 1; DO 1; SELECT 2');
all($db, 'CALL two()');
$statement = $db->prepare('SELECT id, name FROM item WHERE id >= ?');
$id = 1;
$statement->bind_param('i', $id);
$statement->execute();
$statement->get_result();
$statement->execute();
$statement->get_result();
$statement->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
$statement->execute();
while ($statement->fetch()) {
}
$statement->close();
$db->query('SELEC 1');
$db->stat();
$db->ping();
$file = tempnam(sys_get_temp_dir(), 'fruit');
file_put_contents($file, "901,fig,1,\n");
$db->query("LOAD DATA LOCAL INFILE '$file' INTO TABLE item FIELDS TERMINATED BY ','");
unlink($file);
$db->query('DELETE FROM item WHERE id > 3');
$db->change_user('app', 'secret', 'shop');
$db->query('SELECT 1');
$db->change_user('app', 'wrong', 'shop');
$db->close();
