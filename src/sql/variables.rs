//! The session variables of MySQL and MariaDB, and what becomes of a session that sets them.

/// What it means that a session sets a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `SET SESSION name = value` has the same meaning on any connection: it is repeated there.
    Carried,
    /// `autocommit`: carried too, by an [`super::set::Assignment`] of its own.
    Autocommit,
    /// It belongs to one connection or one server: the session is tied to its connection.
    Pins,
    /// No session can set it: the server says so.
    ServerOnly,
    /// The trackers that the proxy needs itself: a session that sets them gets a connection where they are its own.
    Trackers,
}

/// A session variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name, lower case.
    pub name: &'static str,
    /// The name under which two spellings of one variable are kept (`tx_isolation` is
    /// `transaction_isolation`); equal to `name` for all others.
    pub canonical: &'static str,
    /// It changes how the bytes of statements are read: `sql_mode`, `character_set_client`.
    pub changes_reading: bool,
    /// What becomes of a session that sets it.
    pub class: Class,
}

impl Variable {
    const fn of(name: &'static str, class: Class) -> Self {
        Self {
            name,
            canonical: name,
            changes_reading: false,
            class,
        }
    }

    const fn plain(name: &'static str) -> Self {
        Self::of(name, Class::Carried)
    }

    const fn alias(name: &'static str, canonical: &'static str) -> Self {
        Self {
            canonical,
            ..Self::plain(name)
        }
    }

    const fn reading(name: &'static str) -> Self {
        Self {
            changes_reading: true,
            ..Self::plain(name)
        }
    }

    const fn pins(name: &'static str) -> Self {
        Self::of(name, Class::Pins)
    }

    const fn server(name: &'static str) -> Self {
        Self::of(name, Class::ServerOnly)
    }
}

/// Finds a variable that is carried by its name in any case.
pub fn find(name: &[u8]) -> Option<&'static Variable> {
    known(name).filter(|variable| variable.class == Class::Carried)
}

/// Finds a variable by its name in any case; `None` if nothing is known of it. A session that sets such a one is tied to its
/// connection.
pub fn known(name: &[u8]) -> Option<&'static Variable> {
    let compare = |variable: &Variable| {
        variable
            .name
            .bytes()
            .cmp(name.iter().map(u8::to_ascii_lowercase))
    };
    let index = VARIABLES.binary_search_by(compare).ok()?;
    VARIABLES.get(index)
}

/// Sorted by name: those of MySQL 8.0 to 9.7 and MariaDB 10.5 to 12.
const VARIABLES: &[Variable] = &[
    Variable::plain("alter_algorithm"),
    Variable::plain("analyze_max_length"),
    Variable::plain("analyze_sample_percentage"),
    Variable::plain("aria_repair_threads"),
    Variable::plain("aria_sort_buffer_size"),
    Variable::plain("aria_stats_method"),
    Variable::server("audit_log_filter_id"),
    Variable::plain("auto_increment_increment"),
    Variable::plain("auto_increment_offset"),
    Variable::of("autocommit", Class::Autocommit),
    Variable::plain("big_tables"),
    Variable::pins("binlog_alter_two_phase"),
    Variable::pins("binlog_annotate_row_events"),
    Variable::pins("binlog_direct_non_transactional_updates"),
    Variable::pins("binlog_format"),
    Variable::pins("binlog_row_image"),
    Variable::pins("binlog_row_value_options"),
    Variable::pins("binlog_rows_query_log_events"),
    Variable::pins("binlog_transaction_compression"),
    Variable::pins("binlog_transaction_compression_level_zstd"),
    Variable::plain("block_encryption_mode"),
    Variable::plain("bulk_insert_buffer_size"),
    Variable::reading("character_set_client"),
    Variable::plain("character_set_collations"),
    Variable::plain("character_set_connection"),
    Variable::pins("character_set_database"),
    Variable::plain("character_set_filesystem"),
    Variable::plain("character_set_results"),
    Variable::pins("character_set_server"),
    Variable::plain("check_constraint_checks"),
    Variable::plain("collation_connection"),
    Variable::pins("collation_database"),
    Variable::pins("collation_server"),
    Variable::plain("column_compression_threshold"),
    Variable::plain("column_compression_zlib_level"),
    Variable::plain("column_compression_zlib_strategy"),
    Variable::plain("column_compression_zlib_wrap"),
    Variable::plain("completion_type"),
    Variable::pins("connection_memory_chunk_size"),
    Variable::pins("connection_memory_limit"),
    Variable::plain("cte_max_recursion_depth"),
    Variable::plain("deadlock_search_depth_long"),
    Variable::plain("deadlock_search_depth_short"),
    Variable::plain("deadlock_timeout_long"),
    Variable::plain("deadlock_timeout_short"),
    Variable::pins("debug"),
    Variable::pins("debug_dbug"),
    Variable::pins("debug_sync"),
    Variable::plain("default_collation_for_utf8mb4"),
    Variable::pins("default_master_connection"),
    Variable::plain("default_regex_flags"),
    Variable::plain("default_storage_engine"),
    Variable::plain("default_table_encryption"),
    Variable::plain("default_tmp_storage_engine"),
    Variable::plain("default_week_format"),
    Variable::plain("div_precision_increment"),
    Variable::plain("enable_cascade_triggers"),
    Variable::plain("enable_secondary_engine_statistics"),
    Variable::plain("end_markers_in_json"),
    Variable::plain("enforce_storage_engine"),
    Variable::plain("eq_range_index_dive_limit"),
    Variable::server("error_count"),
    Variable::plain("expensive_subquery_limit"),
    Variable::plain("explain_format"),
    Variable::plain("explain_json_format_version"),
    Variable::plain("explicit_defaults_for_timestamp"),
    Variable::plain("external_table_secondary_storage_engine"),
    Variable::pins("external_table_storage_engine"),
    Variable::server("external_user"),
    Variable::plain("foreign_key_checks"),
    Variable::plain("generated_random_password_length"),
    Variable::pins("global_connection_memory_tracking"),
    Variable::plain("group_concat_max_len"),
    Variable::plain("group_replication_consistency"),
    Variable::pins("gtid_domain_id"),
    Variable::pins("gtid_next"),
    Variable::server("gtid_owned"),
    Variable::pins("gtid_seq_no"),
    Variable::plain("histogram_generation_max_mem_size"),
    Variable::plain("histogram_size"),
    Variable::plain("histogram_type"),
    Variable::pins("identity"),
    Variable::plain("idle_readonly_transaction_timeout"),
    Variable::plain("idle_transaction_timeout"),
    Variable::plain("idle_write_transaction_timeout"),
    Variable::pins("immediate_server_version"),
    Variable::plain("in_predicate_conversion_threshold"),
    Variable::server("in_transaction"),
    Variable::plain("information_schema_stats_expiry"),
    Variable::plain("innodb_compression_default"),
    Variable::plain("innodb_ddl_buffer_size"),
    Variable::plain("innodb_ddl_threads"),
    Variable::plain("innodb_default_encryption_key_id"),
    Variable::plain("innodb_ft_enable_stopword"),
    Variable::pins("innodb_ft_user_stopword_table"),
    Variable::plain("innodb_lock_wait_timeout"),
    Variable::plain("innodb_parallel_read_threads"),
    Variable::plain("innodb_snapshot_isolation"),
    Variable::plain("innodb_strict_mode"),
    Variable::plain("innodb_table_locks"),
    Variable::plain("innodb_tmpdir"),
    Variable::pins("insert_id"),
    Variable::plain("interactive_timeout"),
    Variable::plain("internal_tmp_mem_storage_engine"),
    Variable::plain("join_buffer_size"),
    Variable::plain("join_buffer_space_limit"),
    Variable::plain("join_cache_level"),
    Variable::plain("keep_files_on_create"),
    Variable::server("last_gtid"),
    Variable::pins("last_insert_id"),
    Variable::plain("lc_messages"),
    Variable::plain("lc_time_names"),
    Variable::plain("lock_wait_timeout"),
    Variable::plain("log_disabled_statements"),
    Variable::plain("log_queries_not_using_indexes"),
    Variable::plain("log_slow_admin_statements"),
    Variable::plain("log_slow_always_query_time"),
    Variable::plain("log_slow_disabled_statements"),
    Variable::plain("log_slow_filter"),
    Variable::plain("log_slow_max_warnings"),
    Variable::alias("log_slow_min_examined_row_limit", "min_examined_row_limit"),
    Variable::pins("log_slow_query"),
    Variable::alias("log_slow_query_time", "long_query_time"),
    Variable::plain("log_slow_rate_limit"),
    Variable::plain("log_slow_slave_statements"),
    Variable::plain("log_slow_verbosity"),
    Variable::plain("log_warnings"),
    Variable::plain("long_query_time"),
    Variable::plain("low_priority_updates"),
    Variable::server("max_allowed_packet"),
    Variable::plain("max_delayed_threads"),
    Variable::plain("max_error_count"),
    Variable::plain("max_execution_time"),
    Variable::plain("max_heap_table_size"),
    Variable::plain("max_insert_delayed_threads"),
    Variable::plain("max_join_size"),
    Variable::plain("max_length_for_sort_data"),
    Variable::plain("max_points_in_geometry"),
    Variable::plain("max_recursive_iterations"),
    Variable::plain("max_relay_log_size"),
    Variable::plain("max_rowid_filter_size"),
    Variable::plain("max_seeks_for_key"),
    Variable::pins("max_session_mem_used"),
    Variable::plain("max_sort_length"),
    Variable::plain("max_sp_recursion_depth"),
    Variable::plain("max_statement_time"),
    Variable::plain("max_tmp_session_space_usage"),
    Variable::plain("max_tmp_tables"),
    Variable::server("max_user_connections"),
    Variable::plain("mhnsw_default_distance"),
    Variable::plain("mhnsw_default_m"),
    Variable::plain("mhnsw_ef_search"),
    Variable::plain("min_examined_row_limit"),
    Variable::plain("mrr_buffer_size"),
    Variable::plain("myisam_repair_threads"),
    Variable::plain("myisam_sort_buffer_size"),
    Variable::plain("myisam_stats_method"),
    Variable::server("net_buffer_length"),
    Variable::plain("net_read_timeout"),
    Variable::plain("net_retry_count"),
    Variable::plain("net_write_timeout"),
    Variable::plain("new_mode"),
    Variable::plain("note_verbosity"),
    Variable::pins("old"),
    Variable::plain("old_alter_table"),
    Variable::plain("old_mode"),
    Variable::plain("old_passwords"),
    Variable::plain("optimizer_adjust_secondary_key_costs"),
    Variable::plain("optimizer_extra_pruning_depth"),
    Variable::plain("optimizer_join_limit_pref_ratio"),
    Variable::plain("optimizer_max_sel_arg_weight"),
    Variable::plain("optimizer_max_sel_args"),
    Variable::plain("optimizer_max_subgraph_pairs"),
    Variable::plain("optimizer_prune_level"),
    Variable::plain("optimizer_record_context"),
    Variable::plain("optimizer_scan_setup_cost"),
    Variable::plain("optimizer_search_depth"),
    Variable::plain("optimizer_selectivity_sampling_limit"),
    Variable::plain("optimizer_switch"),
    Variable::pins("optimizer_trace"),
    Variable::pins("optimizer_trace_features"),
    Variable::pins("optimizer_trace_limit"),
    Variable::pins("optimizer_trace_max_mem_size"),
    Variable::pins("optimizer_trace_offset"),
    Variable::plain("optimizer_use_condition_selectivity"),
    Variable::plain("optimizer_where_cost"),
    Variable::pins("original_commit_timestamp"),
    Variable::pins("original_server_version"),
    Variable::plain("parser_max_mem_size"),
    Variable::pins("path"),
    Variable::plain("preload_buffer_size"),
    Variable::plain("print_identified_with_as_hex"),
    Variable::pins("profiling"),
    Variable::pins("profiling_history_size"),
    Variable::plain("progress_report_time"),
    Variable::server("proxy_user"),
    Variable::pins("pseudo_replica_mode"),
    Variable::pins("pseudo_slave_mode"),
    Variable::pins("pseudo_thread_id"),
    Variable::plain("query_alloc_block_size"),
    Variable::plain("query_cache_strip_comments"),
    Variable::plain("query_cache_type"),
    Variable::plain("query_cache_wlock_invalidate"),
    Variable::plain("query_prealloc_size"),
    Variable::pins("rand_seed1"),
    Variable::pins("rand_seed2"),
    Variable::plain("range_alloc_block_size"),
    Variable::plain("range_optimizer_max_mem_size"),
    Variable::pins("rbr_exec_mode"),
    Variable::plain("read_buffer_size"),
    Variable::plain("read_rnd_buffer_size"),
    Variable::pins("redirect_url"),
    Variable::pins("require_row_format"),
    Variable::plain("restrict_fk_on_non_standard_key"),
    Variable::pins("resultset_metadata"),
    Variable::plain("rowid_merge_buff_size"),
    Variable::plain("secondary_engine_cost_threshold"),
    Variable::plain("select_into_buffer_size"),
    Variable::plain("select_into_disk_sync"),
    Variable::plain("select_into_disk_sync_delay"),
    Variable::pins("server_id"),
    Variable::of("session_track_gtids", Class::Trackers),
    Variable::of("session_track_schema", Class::Trackers),
    Variable::of("session_track_state_change", Class::Trackers),
    Variable::of("session_track_system_variables", Class::Trackers),
    Variable::of("session_track_transaction_info", Class::Trackers),
    Variable::plain("set_operations_buffer_size"),
    Variable::plain("show_create_table_skip_secondary_engine"),
    Variable::plain("show_create_table_verbosity"),
    Variable::plain("show_gipk_in_create_table_and_information_schema"),
    Variable::plain("show_old_temporals"),
    Variable::pins("skip_parallel_replication"),
    Variable::pins("skip_replication"),
    Variable::pins("slow_query_log"),
    Variable::plain("sort_buffer_size"),
    Variable::plain("sql_auto_is_null"),
    Variable::plain("sql_big_selects"),
    Variable::plain("sql_buffer_result"),
    Variable::plain("sql_generate_invisible_primary_key"),
    Variable::plain("sql_if_exists"),
    Variable::pins("sql_log_bin"),
    Variable::pins("sql_log_off"),
    Variable::reading("sql_mode"),
    Variable::plain("sql_notes"),
    Variable::plain("sql_quote_show_create"),
    Variable::plain("sql_require_primary_key"),
    Variable::plain("sql_safe_updates"),
    Variable::plain("sql_select_limit"),
    Variable::pins("sql_slave_skip_counter"),
    Variable::plain("sql_warnings"),
    Variable::plain("standard_compliant_cte"),
    Variable::server("statement_id"),
    Variable::alias("storage_engine", "default_storage_engine"),
    Variable::plain("system_versioning_alter_history"),
    Variable::plain("system_versioning_asof"),
    Variable::plain("system_versioning_insert_history"),
    Variable::pins("tcp_nodelay"),
    Variable::pins("terminology_use_previous"),
    Variable::pins("thread_pool_high_priority_connection"),
    Variable::pins("thread_pool_priority"),
    Variable::plain("time_zone"),
    Variable::pins("timestamp"),
    Variable::plain("tmp_disk_table_size"),
    Variable::alias("tmp_memory_table_size", "tmp_table_size"),
    Variable::plain("tmp_table_size"),
    Variable::plain("transaction_alloc_block_size"),
    Variable::plain("transaction_allow_batching"),
    Variable::plain("transaction_isolation"),
    Variable::plain("transaction_prealloc_size"),
    Variable::plain("transaction_read_only"),
    Variable::pins("transaction_write_set_extraction"),
    Variable::alias("tx_isolation", "transaction_isolation"),
    Variable::alias("tx_read_only", "transaction_read_only"),
    Variable::plain("unique_checks"),
    Variable::plain("updatable_views_with_limit"),
    Variable::plain("use_secondary_engine"),
    Variable::plain("use_stat_tables"),
    Variable::pins("version_tokens_session"),
    Variable::plain("wait_timeout"),
    Variable::server("warning_count"),
    Variable::plain("windowing_use_high_precision"),
    Variable::pins("wsrep_causal_reads"),
    Variable::pins("wsrep_dirty_reads"),
    Variable::pins("wsrep_gtid_seq_no"),
    Variable::pins("wsrep_on"),
    Variable::pins("wsrep_osu_method"),
    Variable::pins("wsrep_retry_autocommit"),
    Variable::plain("wsrep_sync_wait"),
    Variable::pins("wsrep_trx_fragment_size"),
    Variable::pins("wsrep_trx_fragment_unit"),
    Variable::pins("xa_detach_on_prepare"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_searchable() {
        assert!(VARIABLES.is_sorted_by(|a, b| a.name < b.name));
        for variable in VARIABLES {
            assert_eq!(known(variable.name.as_bytes()), Some(variable));
            assert_eq!(
                known(variable.name.to_ascii_uppercase().as_bytes()),
                Some(variable)
            );
            let carried = (variable.class == Class::Carried).then_some(variable);
            assert_eq!(find(variable.name.as_bytes()), carried);
            assert!(
                VARIABLES
                    .iter()
                    .any(|other| other.name == variable.canonical)
                    || variable.canonical != variable.name
            );
        }
        for name in [
            "",
            "autocommit",
            "sql_log_bin",
            "timestamp",
            "insert_id",
            "zzz",
            "sql_mode ",
        ] {
            assert_eq!(find(name.as_bytes()), None, "{name}");
        }
    }
}
