<?php
// connect.php PORT SECONDS: connects, runs one query and disconnects, again and again; prints how often.
declare(strict_types=1);

mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
[, $port, $seconds] = $argv;
$end = hrtime(true) + (int) ($seconds * 1e9);
for ($done = 0; hrtime(true) < $end; $done++) {
    $link = new mysqli('127.0.0.1', 'app', 'app', 'sbtest', (int) $port);
    $link->query('SELECT c FROM sbtest1 WHERE id = ' . random_int(1, 100000))->fetch_row();
    $link->close();
}
echo $done, "\n";
