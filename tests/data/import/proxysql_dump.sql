-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)
--
-- Host: 127.0.0.1    Database: main
/*!40101 SET NAMES utf8mb4 */;

DROP TABLE IF EXISTS `global_variables`;
CREATE TABLE `global_variables` (
    variable_name VARCHAR NOT NULL PRIMARY KEY ,
    variable_value VARCHAR NOT NULL);
LOCK TABLES `global_variables` WRITE;
INSERT INTO `global_variables` VALUES ('mysql-monitor_username','watch'),('mysql-monitor_password','back\\slash'),('mysql-interfaces','0.0.0.0:6033'),('admin-stats_credentials','stats:hidden');
UNLOCK TABLES;
CREATE TABLE mysql_group_replication_hostgroups (
    writer_hostgroup INT CHECK (writer_hostgroup>=0) NOT NULL PRIMARY KEY ,
    backup_writer_hostgroup INT CHECK (backup_writer_hostgroup>=0 AND backup_writer_hostgroup<>writer_hostgroup) NOT NULL ,
    reader_hostgroup INT NOT NULL CHECK (reader_hostgroup<>writer_hostgroup AND backup_writer_hostgroup<>reader_hostgroup AND reader_hostgroup>0) ,
    offline_hostgroup INT NOT NULL ,
    UNIQUE (reader_hostgroup));
INSERT INTO `mysql_group_replication_hostgroups` VALUES (5,6,7,8);
CREATE TABLE mysql_servers (
    hostgroup_id INT CHECK (hostgroup_id>=0) NOT NULL DEFAULT 0 ,
    hostname VARCHAR NOT NULL ,
    port INT CHECK (port >= 0 AND port <= 65535) NOT NULL DEFAULT 3306 ,
    status VARCHAR CHECK (UPPER(status) IN ('ONLINE','SHUNNED','OFFLINE_SOFT', 'OFFLINE_HARD')) NOT NULL DEFAULT 'ONLINE' ,
    weight INT CHECK (weight >= 0 AND weight <=10000000) NOT NULL DEFAULT 1 ,
    PRIMARY KEY (hostgroup_id, hostname, port) );
INSERT INTO `mysql_servers` VALUES (5,'gr1',3306,'ONLINE',1),(7,'gr2',3306,'ONLINE',4),(7,'gr3',3306,'SHUNNED',0);
CREATE TABLE runtime_mysql_servers (hostgroup_id INT, hostname VARCHAR, port INT, status VARCHAR, weight INT);
INSERT INTO `runtime_mysql_servers` VALUES (5,'gone',3306,'ONLINE',1);
