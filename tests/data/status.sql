use {s}
select database()
create table t (id int primary key auto_increment, a int, b varchar(20), key(a))
insert into t (a,b) values (1,'x'),(2,'y'),(3,'z')
insert into t (a,b) values (4,'w')
insert into t values (100,5,'e')
insert into t (a) values (6)
select last_insert_id()
insert into t (a) select a from t
replace into t values (1,10,'r')
insert into t values (1,1,'d') on duplicate key update a=a+1
insert ignore into t values (1,1,'d')
show warnings
update t set a=a+1 where id<3
update t set a=a where id<3
update t set b='toolongtoolongtoolongtoolong' where id=1
update ignore t set b='toolongtoolongtoolongtoolong' where id=1
show warnings
show count(*) warnings
delete from t where id=2
delete from t where id=2222
select * from t where id=1
select * from t where a=3
select * from t where b='x'
select * from t order by b, id limit 2
select count(*) from t t1, t t2 where t1.b<>t2.b
select 1/0
select 'abc'+1
select cast('x' as signed)
select nosuch from t
select * from nosuch
selec 1
begin
select * from t where id=1
insert into t (a) values (7)
select count(*) from t where a=7
savepoint s1
insert into t (a) values (8)
rollback to s1
release savepoint s1
select nosuch
commit
start transaction read only
select count(*) from t
insert into t (a) values (9)
commit
start transaction
insert into t (a) values (9)
rollback
start transaction with consistent snapshot
select 1
create table ddl1 (a int)
select 2
commit
begin
begin
select * from t where id=4
rollback
set autocommit=0
select 1
insert into t (a) values (10)
select count(*) from t where a=10
commit
insert into t (a) values (11)
rollback
select count(*) from t where a=11
set autocommit=1
select 1
set @@session.autocommit=0, @@session.sql_notes=0
select 1
select count(*) from t
set autocommit=on, sql_notes=1
set sql_mode='NO_BACKSLASH_ESCAPES'
select 1
select 'a\b'
select count(*) from t
set sql_mode='ANSI_QUOTES'
select "a" from t limit 1
set sql_mode=default
select 1
set names latin1
select 'x'
set names utf8mb4
set names utf8mb4 collate utf8mb4_bin
select 'x'
set character_set_results=null
select 'x', 1, now()>0
set character_set_results=utf8mb4
set time_zone='+03:00'
select @@time_zone
set time_zone=default
set names nosuch
set nosuch=1
use {s}_other
select database()
create table {s}_other.u (x int)
drop database {s}_other
select database()
use nosuchdb
use {s}
set session transaction isolation level read committed
set session transaction isolation level repeatable read
set transaction read only
select count(*) from t
select 1
set transaction isolation level serializable
begin
select count(*) from t where id=1
commit
select 1
create procedure p1() begin select 1; select 2,3; end
call p1()
create procedure p2(out o int) begin set o=5; end
call p2(@x)
select @x
create procedure p3() begin insert into t (a) values (20); insert into t (a) values (21); end
call p3()
create procedure p4() begin select 1; select nosuch; end
call p4()
create procedure p5() begin use_nothing: begin end; update t set a=21 where a=20; end
call p5()
select 1; select 2
insert into t (a) values (30); select last_insert_id()>0; update t set a=31 where a=30
select 1; selec 2; select 3
select 1; select nosuch; select 3
set @a=1; select @a
do 1
do sleep(0)
set @u=5
select @u
create temporary table tmp (a int)
insert into tmp values (1)
select * from tmp
drop temporary table tmp
lock tables t read
select count(*) from t
unlock tables
select get_lock('{s}_lock',0)
select release_lock('{s}_lock')
select sql_calc_found_rows id from t limit 1
select found_rows()
select row_count()
update t set a=1 where id=1
select row_count()
explain select * from t where id=1
describe t
show tables
show create table t
show variables like 'autocommit'
show warnings
analyze table t
check table t
truncate table t
alter table t add column c int
alter table t add column c int
alter table t drop column c
alter table t modify b varchar(30)
create index i1 on t (b)
drop index i1 on t
create view v as select id from t
select * from v
drop view v
drop table if exists nosuch1
show warnings
drop table if exists nosuch1, nosuch2
create table if not exists t (a int)
insert into t (id,a,b) values (1,1,'a'),(2,2,'b'),(3,3,'c')
select * from t where id in (1,2) for update
select * from t union select * from t
select * from t limit 0
select null
select 1 as a, 2 as b, 'c' as c, 1.5 as d, date'2020-01-01' as e
select id as `weird name`, t.* from t limit 1
select version()>''
select current_user()
select @@autocommit, @@session.sql_mode
grant select on {s}.* to nosuchuser
flush tables
prepare s from 'select * from t where id=?'
set @i=1
execute s using @i
deallocate prepare s
execute s
handler t open
handler t read first
handler t close
xa start '{s}_xa'
insert into t (a) values (77)
xa end '{s}_xa'
xa prepare '{s}_xa'
xa commit '{s}_xa'
signal sqlstate '45000' set message_text='mine'
insert into t (a) values (1),('x')
insert into t (nosuch) values (1)
load data local infile 'numbers' into table t (a)
create table tt2 select * from t
drop table tt2
select count(*) from t procedure analyse()
set session max_execution_time=1000
set session group_concat_max_len=100
select 1 into @z
select 1 into outfile '/nonexist/x'
select @@session.group_concat_max_len=100
