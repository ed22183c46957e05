//! The conformance suite: which engine claims which scenario, and one test for each pair.
//!
//! Needs root and the `portway` binary: `cargo build -p portway && sudo cargo test -p portway-lab`, or
//! `./test` in the root of the repository, which also installs the programs that serve as peers.

macro_rules! claims {
    ($($area:ident { $($scenario:ident: $($engine:ident)+;)+ })+) => {
        $(mod $area { $(mod $scenario { $(
            #[test]
            fn $engine() {
                portway_lab::scenario::$area::$scenario(portway_lab::Engine::named(stringify!($engine)));
            }
        )+ })+ })+
    };
}

claims! {
    tcp {
        echo: nftables proxy;
        echo_v6: nftables proxy;
        server_speaks_first: nftables proxy;
        refused: nftables proxy;
        half_close_by_client: nftables proxy;
        half_close_by_server: nftables proxy;
        reset: nftables proxy;
        reset_by_client: nftables proxy;
        smaller_mtu: nftables proxy;
        ssh: nftables proxy;
        redis: nftables proxy;
        iperf3: nftables proxy;
        interactive: nftables proxy;
    }
    http {
        get: nftables proxy;
        transfer: nftables proxy;
        slow_and_broken_off: nftables proxy;
        keep_alive: nftables proxy;
        short_connections: nftables proxy;
        http3: nftables proxy;
    }
    udp {
        echo: nftables proxy;
        sizes: nftables proxy;
        many_clients: nftables proxy;
        dns: nftables proxy;
        refused: nftables proxy;
        answers_from_the_address_asked: nftables proxy;
        iperf3: nftables proxy;
    }
    listen {
        address: nftables proxy;
        any: nftables proxy;
        any_leaves_routed_traffic: nftables proxy;
        interface: nftables proxy;
        most_specific: nftables proxy;
        ranges: nftables proxy;
        sixty_thousand_ports: nftables;
        list: nftables proxy;
    }
    source {
        masquerade: nftables proxy;
        pool: nftables proxy;
        preserve: nftables;
    }
    path {
        from_the_gateway: nftables proxy;
        // The kernel routes nothing from or to ::1 beyond lo, and has no route_localnet for IPv6.
        from_the_gateway_v6_loopback: proxy;
        hairpin: nftables proxy;
        backend_on_the_gateway: nftables proxy;
        backend_on_loopback: nftables proxy;
        backend_on_loopback_v6: proxy;
        auto_and_loopback_v6: proxy;
        two_clients_two_servers: nftables proxy;
    }
    family {
        v6_to_v4: proxy;
        v4_to_v6: proxy;
        auto_takes_the_proxy: proxy;
    }
    follow {
        ftp_active: nftables;
        ftp_passive: nftables;
        ftp_epsv: nftables;
        ftp_active_v6: nftables;
        ftp_epsv_v6: nftables;
        tftp: nftables;
        sip: nftables;
    }
    refused {
        crossing_families: nftables;
        loopback_v6: nftables;
        connection_limit: nftables;
        timeouts: nftables;
        preserve: proxy;
        helper: proxy;
        least_connections: nftables;
        random: nftables;
        sni: nftables;
        backend_limit: nftables;
        passive: nftables;
        retries: nftables;
        both_families: nftables;
    }
    balance {
        round_robin: nftables proxy;
        in_turn: nftables proxy;
        weight_zero: nftables proxy;
        first: nftables proxy;
        backups: nftables proxy;
        persist: nftables proxy;
        least_connections: proxy;
        random: proxy;
        backend_limit: proxy;
    }
    hash {
        source_hash: nftables proxy;
        consistent_hash: nftables proxy;
        source_port: nftables proxy;
        // Goes over both engines, and so counts for both.
        same_on_every_engine: nftables;
        sni: proxy;
    }
    health {
        stopped: nftables proxy;
        frozen: nftables proxy;
        cut_off: nftables proxy;
        where_from_and_where_to: nftables proxy;
        slow_start: nftables proxy;
        ten_thousand_rules: nftables;
    }
    check {
        // Checks are made by the daemon, whatever carries the traffic.
        every_type: nftables;
        wrong_answers: proxy;
    }
    on_down {
        keep: nftables proxy;
        drain: nftables proxy;
        reset: nftables proxy;
    }
    passive {
        refused_connections: proxy;
        early_resets: proxy;
        ejection_is_bounded: proxy;
    }
    empty {
        refuse: nftables proxy;
        wait: nftables proxy;
        sorry: nftables proxy;
    }
    names {
        follows: nftables proxy;
        no_such_name: nftables proxy;
        several_addresses: nftables proxy;
        service: nftables proxy;
        families: nftables proxy;
        ttl_is_clamped: nftables;
        one_address_of_a_name: nftables proxy;
    }
    resolver {
        down: nftables proxy;
        start_does_not_wait: nftables proxy;
        last_known: nftables proxy;
        whose: nftables proxy;
    }
    operator {
        drain: nftables proxy;
        disable: nftables proxy;
        drain_beats_persistence: nftables proxy;
        weight: nftables proxy;
        survives: nftables proxy;
        unknown: nftables proxy;
    }
    conns {
        lists: nftables proxy;
        filters: nftables proxy;
        kill: nftables proxy;
        of_a_rule_that_has_gone: nftables proxy;
        both_engines: nftables;
    }
    pool_reload {
        flows_live_on: nftables proxy;
        under_load: nftables proxy;
        moves_between_engines: nftables proxy;
        one_becomes_many: nftables proxy;
    }
    retry {
        killed_under_load: proxy;
        early_words: proxy;
        cut_off: proxy;
        nobody_is_left: proxy;
    }
    lifecycle {
        reload: nftables proxy;
        reload_udp: nftables proxy;
        reload_by_signal: nftables proxy;
        bad_reload: nftables proxy;
        port_in_use: proxy;
        counters: nftables proxy;
        counters_survive_reload: nftables proxy;
        move_between_engines: nftables proxy;
        held_through_moves: nftables proxy;
        reload_under_load: nftables proxy;
        ten_thousand_rules: nftables;
    }
    restart {
        tidy_end: nftables proxy;
        clear_after_kill: nftables proxy;
        forwards_when_killed: nftables;
        restart_adopts: nftables;
        restart_with_another_file: nftables proxy;
        second_is_refused: nftables proxy;
        foreign_drop_is_named: nftables;
        settings_only_checked: nftables;
        conntrack_timeouts: nftables;
        no_table_without_need: proxy;
        one_owner_of_the_table: nftables;
        control_socket_is_private: nftables proxy;
    }
    command {
        forward: nftables proxy;
        forward_without_root: proxy;
        forward_picks: nftables;
    }
    limits {
        nine_thousand: proxy;
        few_descriptors: proxy;
        out_of_descriptors: proxy;
        rule_limit: proxy;
        udp_flows: proxy;
        timeouts: proxy;
        connect_timeout: proxy;
    }
}
