<?php
// Logs in with TLS by both interfaces: port, authorities, certificate and key of the client.
[, $port, $ca, $certificate, $key] = $argv;

mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$link = mysqli_init();
$link->ssl_set($key, $certificate, $ca, null, null);
$link->real_connect('127.0.0.1', 'app', 'app', null, (int) $port, null, MYSQLI_CLIENT_SSL);
echo 'mysqli ', $link->query('SELECT CURRENT_USER()')->fetch_row()[0], "\n";

$pdo = new PDO("mysql:host=127.0.0.1;port=$port", 'app', 'app', [
    PDO::MYSQL_ATTR_SSL_CA => $ca,
    PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT => true,
]);
echo 'pdo ', $pdo->query('SELECT CURRENT_USER()')->fetchColumn(), "\n";

try {
    // Another authority than the one that signed.
    new PDO("mysql:host=127.0.0.1;port=$port", 'app', 'app', [
        PDO::MYSQL_ATTR_SSL_CA => $certificate,
        PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT => true,
    ]);
    echo "not verified\n";
} catch (PDOException $error) {
    echo "verified\n";
}
