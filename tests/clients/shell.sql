SELECT 1 AS one, 'text' AS two, NULL AS three;
CREATE TABLE shop (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50), price DECIMAL(8,2));
INSERT INTO shop (name, price) VALUES ('a', 1.5), ('b', NULL), ('tab	and \\ and ''', 3);
SELECT * FROM shop ORDER BY id;
UPDATE shop SET price = 2 WHERE id = 2;
SELECT ROW_COUNT(), LAST_INSERT_ID();
SELECT * FROM shop WHERE id = 2\G
DELIMITER //
CREATE PROCEDURE two_results () BEGIN SELECT 1; SELECT name FROM shop ORDER BY id; END //
CALL two_results() //
DELIMITER ;
START TRANSACTION;
DELETE FROM shop;
SELECT COUNT(*) FROM shop;
ROLLBACK;
SELECT COUNT(*) FROM shop;
SET sql_mode = '';
INSERT INTO shop (price) VALUES ('x');
SHOW WARNINGS;
USE test
SELECT COUNT(*) FROM where_am_i;
SHOW TABLES;
SELECT @a := 5;
SELECT @a;
SELECT * FROM nothing;
SELECT 'after the error';
