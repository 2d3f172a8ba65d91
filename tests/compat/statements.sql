-- What every driver runs and prints in full, in one session: one statement a line. A line that begins with @mariadb or
-- @mysql is for that server alone. Nothing here depends on the time, on chance or on which server answers.
SELECT 1
SELECT 1 AS one, 'two' AS two, 3.50 AS three, NULL AS four, TRUE AS five, 1e3 AS six, x'00ff41' AS seven, -9223372036854775808 AS eight, 18446744073709551615 AS nine
SELECT DATABASE(), SCHEMA(), @@autocommit, @@sql_mode, @@character_set_client, @@character_set_connection, @@character_set_results, @@collation_connection
SELECT @@version, @@version_comment, VERSION()
SELECT CONNECTION_ID() = @@pseudo_thread_id AS same
SELECT CURRENT_USER(), SESSION_USER() LIKE 'app@%', USER() LIKE 'app@%'
SELECT @@session.time_zone, @@session.wait_timeout > 0, @@session.interactive_timeout, @@net_buffer_length, @@max_allowed_packet
CREATE TABLE numbers (a TINYINT, b TINYINT UNSIGNED, c SMALLINT, d MEDIUMINT, e INT UNSIGNED, f BIGINT, g BIGINT UNSIGNED, h DECIMAL(30,10), i FLOAT, j DOUBLE, k BIT(1), l BIT(17), m YEAR, n BOOL, o INT(5) ZEROFILL)
INSERT INTO numbers VALUES (-128, 255, -32768, 8388607, 4294967295, -9223372036854775808, 18446744073709551615, 12345678901234567890.0123456789, 1.5, 2.718281828459045, b'1', b'10101010101010101', 2024, TRUE, 42)
INSERT INTO numbers () VALUES ()
INSERT INTO numbers VALUES (127, 0, 32767, -8388608, 0, 9223372036854775807, 0, -0.0000000001, -0.25, 1e-300, b'0', b'0', 1901, FALSE, 0)
SELECT * FROM numbers
SELECT a + 1, b - 1, g DIV 2, h * 2, i + j, k + 0, CAST(l AS UNSIGNED), SUM(a), AVG(h), COUNT(*) FROM numbers GROUP BY a, b, g, h, i, j, k, l ORDER BY a
CREATE TABLE texts (a CHAR(5), b VARCHAR(50) CHARACTER SET latin1, c VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, d TEXT, e TINYBLOB, f VARBINARY(16), g BINARY(4), h ENUM('x','y','zä'), i SET('p','q','r'), j LONGTEXT, k MEDIUMBLOB, l CHAR(3) CHARACTER SET ascii) DEFAULT CHARACTER SET utf8mb4
INSERT INTO texts VALUES ('ab', 'käse', 'brot 🍞', 'zeile\nnächste', x'00ff', x'010203', 'ab', 'zä', 'p,r', 'lang', REPEAT(x'ee', 300), 'abc')
INSERT INTO texts VALUES ('', '', '', '', '', '', '', 'x', '', '', '', '')
INSERT INTO texts () VALUES ()
SELECT a, b, c, d, HEX(e), HEX(f), HEX(g), h, i, j, LENGTH(k), l FROM texts
SELECT e, f, g FROM texts
SELECT b, c, CONCAT(c, a), UPPER(h), h + 0, i + 0, LENGTH(c), CHAR_LENGTH(c), CHARSET(b), COLLATION(c) FROM texts
CREATE TABLE times (a DATE, b TIME(6), c DATETIME(3), d TIMESTAMP NULL, e DATETIME, f YEAR)
INSERT INTO times VALUES ('2024-02-29', '-838:59:59.000000', '2024-12-31 23:59:59.987', '2001-01-01 12:00:00', '9999-12-31 23:59:59', 1999)
INSERT INTO times VALUES ('1000-01-01', '00:00:00.000001', '1970-01-02 00:00:00', '2038-01-19 03:14:07', '1000-01-01 00:00:00', 2155)
INSERT INTO times () VALUES ()
SELECT * FROM times
SET SESSION time_zone = '+05:30'
SELECT d, e, UNIX_TIMESTAMP(d) FROM times
SET time_zone = 'SYSTEM'
SELECT d FROM times WHERE d IS NOT NULL
SELECT STR_TO_DATE('29.02.2024', '%d.%m.%Y') AS x, DATE_ADD('2024-01-31', INTERVAL 1 MONTH) AS y, SEC_TO_TIME(4000) AS z, TIMEDIFF('10:00:00', '12:30:00') AS w
CREATE TABLE documents (id INT PRIMARY KEY, doc JSON)
INSERT INTO documents VALUES (1, '{"a": [1, 2.5, "drei", null, true], "ü": {}}'), (2, '[]'), (3, NULL)
SELECT * FROM documents ORDER BY id
SELECT JSON_EXTRACT(doc, '$.a[1]') AS a, JSON_UNQUOTE(JSON_EXTRACT(doc, '$.a[2]')) AS b, JSON_TYPE(doc) AS c FROM documents ORDER BY id
INSERT INTO documents VALUES (4, 'not json')
CREATE TABLE items (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL DEFAULT 'unnamed', price DECIMAL(8,2) UNSIGNED, parent INT NULL, UNIQUE KEY one_name (name), KEY (parent), CONSTRAINT its_parent FOREIGN KEY (parent) REFERENCES items (id))
INSERT INTO items (name, price) VALUES ('bread', 2.20), ('cheese', 7.50), ('coffee', 9.90)
SELECT LAST_INSERT_ID(), ROW_COUNT(), FOUND_ROWS()
INSERT INTO items (name, price, parent) VALUES ('decaf', 9.50, 3)
SELECT LAST_INSERT_ID() AS id, @@last_insert_id AS variable, @@identity AS same
SELECT * FROM items ORDER BY id
UPDATE items SET price = price * 2 WHERE id <= 2
SELECT ROW_COUNT()
UPDATE items SET price = price
UPDATE items SET price = price + 1
SELECT ROW_COUNT()
INSERT INTO items (id, name) VALUES (2, 'cheese again') ON DUPLICATE KEY UPDATE name = VALUES(name)
INSERT INTO items (name) VALUES ('bread') ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), price = 1
SELECT LAST_INSERT_ID()
INSERT IGNORE INTO items (name) VALUES ('bread'), ('new one')
SHOW WARNINGS
SELECT @@warning_count, @@error_count
INSERT INTO items (name) VALUES ('bread')
SHOW ERRORS
SHOW COUNT(*) WARNINGS
REPLACE INTO items (id, name, price) VALUES (1, 'dark bread', 3)
CREATE TABLE child (parent INT, CONSTRAINT its_item FOREIGN KEY (parent) REFERENCES items (id))
INSERT INTO child VALUES (999)
DROP TABLE child
DELETE FROM items WHERE id = 3
SELECT SQL_CALC_FOUND_ROWS id FROM items ORDER BY id LIMIT 2
SELECT FOUND_ROWS()
SELECT id FROM items ORDER BY id LIMIT 1, 2
SELECT name FROM items WHERE name LIKE '%bread%' UNION SELECT 'x' UNION ALL SELECT 'y' ORDER BY 1
SELECT i.*, p.name AS of FROM items i LEFT JOIN items p ON p.id = i.parent ORDER BY i.id
SELECT COUNT(*), MAX(price), MIN(name), GROUP_CONCAT(name ORDER BY id SEPARATOR '|') FROM items
SELECT id, ROW_NUMBER() OVER (ORDER BY id DESC) AS n FROM items ORDER BY id
WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT x, x * x FROM n
SELECT * FROM items WHERE id IN (SELECT MAX(id) FROM items) FOR UPDATE
SELECT * FROM items WHERE id = -1
SELECT '' AS nothing, ' ' AS blank, 'it''s' AS quote, "double" AS dq, 'back\\slash' AS bs, _latin1 x'e4' AS intro, N'national' AS nat
SELECT 1 WHERE FALSE
-- Errors and warnings
SELEKT 1
SELECT * FROM no_such_table
SELECT no_such_column FROM items
SELECT no_such_function(1)
INSERT INTO items (name, price) VALUES ('negative', -1)
INSERT INTO items (name, price) VALUES (NULL, 1)
SELECT 1/0, CAST('12abc' AS SIGNED), CAST('2024-13-45' AS DATE)
SHOW WARNINGS
SELECT (SELECT id FROM items)
DROP TABLE no_such_table
DROP TABLE IF EXISTS no_such_table
SHOW WARNINGS
CREATE TABLE items (id INT)
USE no_such_schema
SELECT user FROM mysql.user ORDER BY user
GRANT SELECT ON *.* TO app
@mariadb SET GLOBAL max_connections = 10
SET no_such_variable = 1
SET SESSION sql_mode = 'NO_SUCH_MODE'
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'my own error', MYSQL_ERRNO = 5000
SET SESSION sql_mode = ''
INSERT INTO items (name, price) VALUES ('far too long a name for a column of only forty characters', 'abc')
SHOW WARNINGS
SELECT @@warning_count
INSERT INTO numbers (a, b, m) VALUES (1000, -1, 'x')
SHOW WARNINGS LIMIT 1
INSERT INTO times (a, c, e) VALUES ('0000-00-00', '2024-00-00', '2024-02-30 00:00:00')
SELECT a, c, e FROM times ORDER BY a, c, e
SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'
SELECT "id", 'a\b', 'x' || 'y' FROM "items" WHERE "id" = 1
SET SESSION sql_mode = DEFAULT
SELECT "id", 'a\\b', 'x' || 'y' FROM `items` WHERE `id` = 1
-- User variables, and what else belongs to the session
SET @a = 1, @b := 'zwei', @c = NULL, @d = 1.50
SELECT @a, @b, @c, @d, @not_set
SELECT @n := COUNT(*) FROM items
SELECT @n + 1
SELECT id, name INTO @id, @name FROM items ORDER BY id LIMIT 1
SELECT @id, @name
DO @e := 5
SELECT @e
CREATE TEMPORARY TABLE scratch (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(10))
INSERT INTO scratch (v) VALUES ('a'), ('b')
SELECT * FROM scratch
CREATE TEMPORARY TABLE items (hidden INT)
SELECT * FROM items
DROP TEMPORARY TABLE items
SELECT COUNT(*) FROM items
DROP TEMPORARY TABLE scratch
SELECT GET_LOCK('compat', 5), IS_FREE_LOCK('compat'), IS_USED_LOCK('compat') = CONNECTION_ID()
SELECT RELEASE_LOCK('compat'), RELEASE_LOCK('compat'), IS_FREE_LOCK('compat')
LOCK TABLES items WRITE, numbers READ
SELECT COUNT(*) FROM items
SELECT COUNT(*) FROM times
INSERT INTO numbers () VALUES ()
UNLOCK TABLES
HANDLER numbers OPEN AS h
HANDLER h READ FIRST
HANDLER h CLOSE
PREPARE s FROM 'SELECT ? + ?, ? AS text'
EXECUTE s USING @a, @d, @b
EXECUTE s USING @a
DEALLOCATE PREPARE s
EXECUTE s USING @a, @d, @b
SELECT LAST_INSERT_ID(77)
SELECT LAST_INSERT_ID()
SET LAST_INSERT_ID = 5
SELECT LAST_INSERT_ID()
SET INSERT_ID = 500
INSERT INTO items (name) VALUES ('five hundred')
SELECT LAST_INSERT_ID()
SET TIMESTAMP = 1000000000
SELECT NOW(), UNIX_TIMESTAMP(), CURRENT_TIMESTAMP
SET TIMESTAMP = DEFAULT
SELECT NOW() > '2020-01-01'
SET SESSION sql_select_limit = 2
SELECT id FROM items ORDER BY id
SET sql_select_limit = DEFAULT
SET NAMES latin1
SELECT @@character_set_client, @@character_set_results
SET NAMES utf8mb4
SET CHARACTER SET utf8mb4
SELECT @@character_set_client, @@collation_connection
SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci
SELECT @@collation_connection
SET NAMES DEFAULT
SET NAMES utf8mb4
SET SESSION group_concat_max_len = 10
SELECT GROUP_CONCAT(name ORDER BY id) FROM items
SHOW WARNINGS
SET SESSION group_concat_max_len = DEFAULT
SET SESSION lock_wait_timeout = 10, SESSION innodb_lock_wait_timeout = 5
SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout
SHOW SESSION VARIABLES LIKE 'innodb_lock_wait_timeout'
SHOW VARIABLES LIKE 'sql_mode'
SHOW VARIABLES WHERE Variable_name IN ('autocommit', 'character_set_client', 'collation_database')
-- Transactions
BEGIN
INSERT INTO items (name) VALUES ('in a transaction')
SELECT COUNT(*) FROM items
SAVEPOINT one
DELETE FROM items WHERE name = 'in a transaction'
SELECT COUNT(*) FROM items
ROLLBACK TO SAVEPOINT one
RELEASE SAVEPOINT one
RELEASE SAVEPOINT one
SELECT COUNT(*) FROM items
COMMIT AND CHAIN
SELECT COUNT(*) FROM items
ROLLBACK
SET autocommit = 0
INSERT INTO items (name) VALUES ('without autocommit')
SELECT @@autocommit, COUNT(*) FROM items
ROLLBACK
SELECT COUNT(*) FROM items
SET autocommit = 1
START TRANSACTION READ ONLY
SELECT COUNT(*) FROM items
INSERT INTO items (name) VALUES ('refused')
COMMIT
START TRANSACTION WITH CONSISTENT SNAPSHOT
SELECT COUNT(*) FROM items
COMMIT
SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED
SELECT COUNT(*) FROM items
SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE
@mariadb SELECT @@tx_isolation
@mysql SELECT @@transaction_isolation
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ
SET SESSION TRANSACTION READ ONLY
INSERT INTO items (name) VALUES ('refused too')
SET SESSION TRANSACTION READ WRITE
XA START 'compat'
INSERT INTO items (name) VALUES ('in an XA transaction')
SELECT COUNT(*) FROM items
XA END 'compat'
SELECT 1
XA PREPARE 'compat'
XA COMMIT 'compat'
SELECT COUNT(*) FROM items
-- Schema changes
ALTER TABLE items ADD COLUMN note VARCHAR(20) DEFAULT 'none', ADD INDEX (price)
SELECT id, note FROM items ORDER BY id LIMIT 2
CREATE OR REPLACE VIEW cheap AS SELECT id, name FROM items WHERE price < 5
SELECT * FROM cheap ORDER BY id
SHOW CREATE VIEW cheap
SHOW CREATE TABLE items
DESCRIBE items
SHOW FULL COLUMNS FROM items
SELECT table_name, non_unique, index_name, seq_in_index, column_name, nullable, index_type FROM information_schema.statistics WHERE table_schema = DATABASE() ORDER BY 1, 3, 4
SHOW INDEX FROM no_such_table
SHOW TABLES
SHOW FULL TABLES LIKE 'c%'
SHOW DATABASES LIKE 'compat%'
SHOW COLUMNS FROM items LIKE 'n%'
SELECT table_name, table_type, engine, table_rows IS NULL FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY table_name
SELECT column_name, ordinal_position, column_default, is_nullable, data_type, column_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'items' ORDER BY ordinal_position
EXPLAIN SELECT * FROM documents WHERE id = 1
CHECK TABLE documents
ANALYZE TABLE documents
OPTIMIZE TABLE documents
RENAME TABLE documents TO papers
TRUNCATE TABLE papers
SELECT COUNT(*) FROM papers
DROP TABLE papers
CREATE TABLE copied AS SELECT id, name FROM items ORDER BY id
INSERT INTO copied SELECT id + 1000, name FROM items ORDER BY id
SELECT COUNT(*) FROM copied
DELETE FROM copied WHERE id > 1000
DELETE c, i FROM copied c JOIN items i ON i.id = c.id WHERE i.name = 'five hundred'
DROP TABLE copied
-- Routines
CREATE FUNCTION twice (n INT) RETURNS INT DETERMINISTIC RETURN n * 2
SELECT twice(21), twice(id) FROM items ORDER BY id LIMIT 1
CREATE FUNCTION counted () RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO items (name) VALUES ('by a function'); RETURN ROW_COUNT(); END
SELECT counted()
SELECT name FROM items WHERE name = 'by a function'
CREATE PROCEDURE nothing () BEGIN END
CALL nothing()
CREATE PROCEDURE out_and_in (IN a INT, INOUT b INT, OUT c VARCHAR(20)) BEGIN SET b = a + b; SET c = CONCAT('b is ', b); END
SET @b = 5
CALL out_and_in(3, @b, @c)
SELECT @b, @c
CREATE PROCEDURE fails () BEGIN INSERT INTO items (name) VALUES ('before it fails'); SIGNAL SQLSTATE '45001' SET MESSAGE_TEXT = 'as intended'; END
CALL fails()
SELECT COUNT(*) FROM items WHERE name = 'before it fails'
CALL no_such_procedure()
CREATE TRIGGER stamped BEFORE INSERT ON items FOR EACH ROW SET NEW.note = 'stamped'
INSERT INTO items (name) VALUES ('triggered')
SELECT note FROM items WHERE name = 'triggered'
SHOW PROCEDURE STATUS LIKE 'no such'
SELECT routine_name, routine_type, data_type FROM information_schema.routines WHERE routine_schema = DATABASE() ORDER BY 1
SHOW TRIGGERS LIKE 'no such'
DROP TRIGGER stamped
DROP PROCEDURE nothing
BEGIN NOT ATOMIC SELECT 1; END
@mariadb INSERT INTO items (name) VALUES ('returned') RETURNING id > 0, name, note
@mariadb DELETE FROM items WHERE name = 'returned' RETURNING name
@mariadb CREATE SEQUENCE counter START WITH 10 INCREMENT BY 5
@mariadb SELECT NEXT VALUE FOR counter, NEXTVAL(counter)
@mariadb SELECT LASTVAL(counter)
@mariadb SET STATEMENT max_statement_time = 10 FOR SELECT COUNT(*) FROM items
@mariadb EXECUTE IMMEDIATE 'SELECT ? AS x' USING 42
@mariadb SELECT CAST('::1' AS INET6), CAST('12345678-1234-1234-1234-123456789abc' AS UUID)
@mysql SELECT /*+ MAX_EXECUTION_TIME(10000) */ COUNT(*) FROM items
@mysql SELECT * FROM JSON_TABLE('[1, 2]', '$[*]' COLUMNS (x INT PATH '$')) AS t
@mysql TABLE numbers LIMIT 1
@mysql VALUES ROW (1, 'a'), ROW (2, 'b')
@mysql SET @@session.sql_require_primary_key = OFF
-- Schemas
USE compat_other
SELECT DATABASE(), @@character_set_database
CREATE TABLE here (a INT, b VARCHAR(10))
INSERT INTO here VALUES (1, 'x')
SELECT * FROM here
SELECT COUNT(*) FROM compat.items
SELECT * FROM items
USE compat
SELECT * FROM here
SELECT * FROM compat_other.here
DROP TABLE compat_other.here
SELECT DATABASE()
/* a comment */ SELECT 1 /* inside */ + 1 -- and at the end
/*!40000 SELECT 'executable' */
# only a comment
SELECT SLEEP(0), BENCHMARK(1, 1)
SELECT 2 INTO @x
SHOW STATUS LIKE 'Not_there'
SHOW ENGINE NOSUCH STATUS
KILL 4294967295
KILL QUERY 4294967295
FLUSH TABLES
SELECT 'the end' AS x
