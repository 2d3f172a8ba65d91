-- Set up by hand on 127.0.0.1:6032
SET mysql-monitor_username = 'watch';
UPDATE global_variables SET variable_value='it''s \here' WHERE variable_name='mysql-monitor_password';
UPDATE global_variables SET variable_value='300' WHERE variable_name IN ('mysql-max_connections');

DELETE FROM mysql_servers;
INSERT INTO mysql_servers (hostgroup_id, hostname, port, weight, gtid_port) VALUES
    (1, 'db-a', 3306, 1, 0),
    (2, 'db-b', 3306, 3, 33061);
REPLACE INTO mysql_servers (hostgroup_id, hostname, port) VALUES (2, '/run/mysqld/third.sock', 0);
INSERT OR REPLACE INTO main.mysql_users (username, password, default_hostgroup) VALUES ('web', '*C0FFEE', 1);
INSERT INTO mysql_query_rules (rule_id, active, match_digest, destination_hostgroup, apply) VALUES (10, 1, '^SELECT', 2, 1);
INSERT INTO mysql_query_rules (rule_id, active, match_digest, mirror_hostgroup) VALUES (11, 1, '^INSERT INTO audit', NULL);
LOAD MYSQL SERVERS TO RUNTIME; SAVE MYSQL SERVERS TO DISK;
