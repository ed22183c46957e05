//! The conformance suite: which engine claims which scenario, and one test for each pair.
//!
//! `ebpf` is the engine of that name over TC, `xdp` the same over XDP, `clsact` over TC as kernels without tcx have it; what no packet
//! decides is claimed by `ebpf` for all. Over clsact goes one scenario of each kind of packet: the programs are those of `ebpf`.
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
        echo: nftables ebpf xdp clsact proxy;
        echo_v6: nftables ebpf xdp clsact proxy;
        server_speaks_first: nftables ebpf xdp proxy;
        refused: nftables ebpf xdp proxy;
        half_close_by_client: nftables ebpf xdp proxy;
        half_close_by_server: nftables ebpf xdp proxy;
        reset: nftables ebpf xdp proxy;
        reset_by_client: nftables ebpf xdp proxy;
        forged_reset: nftables ebpf xdp proxy;
        smaller_mtu: nftables ebpf xdp proxy;
        ssh: nftables ebpf xdp proxy;
        redis: nftables ebpf xdp proxy;
        iperf3: nftables ebpf xdp clsact proxy;
        interactive: nftables ebpf xdp proxy;
    }
    http {
        get: nftables ebpf xdp proxy;
        transfer: nftables ebpf xdp clsact proxy;
        slow_and_broken_off: nftables ebpf xdp proxy;
        keep_alive: nftables ebpf xdp proxy;
        short_connections: nftables ebpf xdp proxy;
        http3: nftables ebpf xdp proxy;
    }
    udp {
        echo: nftables ebpf xdp clsact proxy;
        sizes: nftables ebpf xdp clsact proxy;
        many_clients: nftables ebpf xdp proxy;
        dns: nftables ebpf xdp proxy;
        refused: nftables ebpf xdp proxy;
        answers_from_the_address_asked: nftables ebpf xdp proxy;
        iperf3: nftables ebpf xdp proxy;
    }
    listen {
        address: nftables ebpf xdp proxy;
        any: nftables ebpf xdp proxy;
        any_leaves_routed_traffic: nftables ebpf xdp proxy;
        interface: nftables ebpf xdp proxy;
        most_specific: nftables ebpf xdp proxy;
        ranges: nftables ebpf xdp proxy;
        sixty_thousand_ports: nftables ebpf xdp;
        list: nftables ebpf xdp proxy;
    }
    source {
        masquerade: nftables ebpf xdp proxy;
        pool: nftables ebpf xdp proxy;
        preserve: nftables;
        pool_v6: nftables ebpf xdp proxy;
    }
    path {
        from_the_gateway: nftables proxy;
        // The kernel routes nothing from or to ::1 beyond lo, and has no route_localnet for IPv6.
        from_the_gateway_v6_loopback: proxy;
        hairpin: nftables ebpf xdp proxy;
        backend_on_the_gateway: nftables proxy;
        backend_on_loopback: nftables proxy;
        backend_on_loopback_v6: proxy;
        auto_and_loopback_v6: proxy;
        two_clients_two_servers: nftables ebpf xdp proxy;
    }
    family {
        v6_to_v4: ebpf xdp proxy;
        v4_to_v6: ebpf xdp proxy;
        both_in_one_pool: ebpf xdp proxy;
        transfers: ebpf xdp clsact proxy;
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
        connection_limit: nftables ebpf;
        timeouts: nftables ebpf;
        preserve: ebpf proxy;
        helper: ebpf proxy;
        least_connections: nftables ebpf;
        random: nftables ebpf;
        sni: nftables ebpf;
        backend_limit: nftables ebpf;
        passive: nftables ebpf;
        retries: nftables ebpf;
        both_families: nftables;
        loopback_listener: ebpf;
        loopback_backend: ebpf;
        local_backend: ebpf;
        client_address: nftables proxy;
        syn_cookies: nftables proxy;
        new_flow_rate: nftables proxy;
    }
    auto {
        takes_ebpf_for_what_no_other_does: ebpf;
    }
    hook {
        flows: ebpf xdp clsact;
        transfers: ebpf xdp clsact;
    }
    trains {
        whole: nftables ebpf xdp clsact proxy;
        across_families: ebpf xdp clsact proxy;
    }
    offload {
        segmentation: ebpf xdp clsact;
        checksums: ebpf xdp clsact;
        merging: ebpf xdp clsact;
    }
    mtu {
        tcp_before_the_server: nftables ebpf xdp clsact proxy;
        tcp_behind_the_client: nftables ebpf xdp proxy;
        tcp_across_families: ebpf xdp proxy;
        udp_before_the_server: nftables ebpf xdp;
        udp_behind_the_client: nftables ebpf xdp;
        udp_across_families: ebpf xdp;
    }
    icmp {
        unreachable_both_ways: nftables ebpf xdp;
        time_exceeded: ebpf xdp;
        echo_is_the_hosts: nftables ebpf xdp proxy;
        unreachable_across_families: ebpf xdp;
    }
    fragment {
        whole: nftables ebpf xdp clsact proxy;
        interleaved: nftables ebpf xdp proxy;
        host_keeps_its_own: nftables ebpf xdp proxy;
        on_the_way_out: nftables ebpf xdp clsact proxy;
        across_families: ebpf xdp clsact proxy;
        tcp: nftables ebpf xdp clsact proxy;
    }
    host {
        services: nftables ebpf xdp proxy;
        same_ports_as_the_host: nftables ebpf xdp proxy;
        client_beside_flows: nftables ebpf xdp proxy;
        unknown_flows_are_reset: nftables ebpf xdp proxy;
        half_open: nftables ebpf xdp proxy;
        client_beside_flows_v6: nftables ebpf xdp proxy;
        client_beside_flows_across_families: ebpf xdp proxy;
        unknown_flows_are_reset_v6: nftables ebpf xdp proxy;
    }
    table {
        full: ebpf xdp;
        source_pool_multiplies_the_room: ebpf xdp;
        source_ports_are_told_before_they_run_out: ebpf xdp;
    }
    counted {
        exchange: nftables ebpf xdp proxy;
        refused: ebpf xdp;
    }
    time_wait {
        thousands: nftables ebpf xdp proxy;
        same_port: nftables ebpf xdp proxy;
        same_port_of_others: nftables ebpf xdp proxy;
    }
    upgrade {
        under_transfers: nftables ebpf xdp;
        flows_are_found: nftables ebpf xdp;
        other_bounds: ebpf;
        leaves_nothing: ebpf xdp;
        moves_between_hooks: ebpf;
    }
    interfaces {
        come_and_go: nftables ebpf xdp proxy;
        // nftables forgets the flows of an interface that goes down.
        change: ebpf xdp proxy;
        silent_neighbour: nftables ebpf xdp proxy;
        chosen: ebpf xdp;
        probed: ebpf xdp;
        clsact: ebpf;
        foreign_programs: ebpf xdp;
        reserved_ports: ebpf;
    }
    links {
        bridges: nftables ebpf xdp proxy;
        macvlan: nftables ebpf xdp proxy;
        tunnel: nftables ebpf xdp clsact proxy;
        tunnel_cookies: ebpf xdp;
    }
    toa {
        nginx_logs_the_client: ebpf xdp clsact;
        across_families: ebpf xdp;
        behind_cookies: ebpf xdp clsact;
        forged: ebpf xdp;
        transfers: ebpf xdp clsact;
        nobody_reads: ebpf xdp;
    }
    flood {
        cookies: ebpf xdp;
        cookies_always: ebpf xdp clsact;
        cookies_across_families: ebpf xdp;
        cookies_and_the_ends: ebpf xdp;
        rate: ebpf xdp;
    }
    balance {
        round_robin: nftables ebpf xdp proxy;
        in_turn: nftables ebpf xdp proxy;
        weight_zero: nftables ebpf xdp proxy;
        first: nftables ebpf xdp proxy;
        backups: nftables ebpf xdp proxy;
        persist: nftables ebpf xdp proxy;
        least_connections: proxy;
        random: proxy;
        backend_limit: proxy;
    }
    hash {
        source_hash: nftables ebpf xdp proxy;
        consistent_hash: nftables ebpf xdp proxy;
        source_port: nftables ebpf xdp proxy;
        // Goes over all engines, and so counts for all.
        same_on_every_engine: nftables;
        sni: proxy;
    }
    health {
        stopped: nftables ebpf xdp proxy;
        frozen: nftables ebpf xdp proxy;
        cut_off: nftables ebpf xdp proxy;
        where_from_and_where_to: nftables ebpf xdp proxy;
        slow_start: nftables ebpf xdp proxy;
        ten_thousand_rules: nftables ebpf;
    }
    check {
        // Checks are made by the daemon, whatever carries the traffic.
        every_type: nftables;
        wrong_answers: proxy;
    }
    on_down {
        keep: nftables ebpf xdp proxy;
        drain: nftables ebpf xdp proxy;
        reset: nftables ebpf xdp proxy;
    }
    passive {
        refused_connections: proxy;
        early_resets: proxy;
        ejection_is_bounded: proxy;
    }
    empty {
        refuse: nftables ebpf xdp proxy;
        wait: nftables ebpf xdp proxy;
        sorry: nftables ebpf xdp proxy;
    }
    names {
        follows: nftables ebpf xdp proxy;
        no_such_name: nftables ebpf xdp proxy;
        several_addresses: nftables ebpf xdp proxy;
        service: nftables ebpf xdp proxy;
        families: nftables ebpf xdp proxy;
        ttl_is_clamped: nftables;
        one_address_of_a_name: nftables ebpf xdp proxy;
    }
    resolver {
        down: nftables ebpf proxy;
        start_does_not_wait: nftables ebpf proxy;
        last_known: nftables ebpf proxy;
        whose: nftables ebpf proxy;
    }
    operator {
        drain: nftables ebpf xdp proxy;
        disable: nftables ebpf xdp proxy;
        drain_beats_persistence: nftables ebpf xdp proxy;
        weight: nftables ebpf xdp proxy;
        survives: nftables ebpf xdp proxy;
        unknown: nftables ebpf xdp proxy;
    }
    conns {
        lists: nftables ebpf xdp proxy;
        filters: nftables ebpf xdp proxy;
        kill: nftables ebpf xdp proxy;
        of_a_rule_that_has_gone: nftables ebpf xdp proxy;
        both_engines: nftables ebpf xdp;
    }
    pool_reload {
        flows_live_on: nftables ebpf xdp proxy;
        under_load: nftables ebpf xdp proxy;
        moves_between_engines: nftables ebpf xdp proxy;
        one_becomes_many: nftables ebpf xdp proxy;
    }
    retry {
        killed_under_load: proxy;
        early_words: proxy;
        cut_off: proxy;
        nobody_is_left: proxy;
    }
    lifecycle {
        reload: nftables ebpf xdp proxy;
        reload_udp: nftables ebpf xdp proxy;
        reload_by_signal: nftables ebpf xdp proxy;
        bad_reload: nftables ebpf xdp proxy;
        port_in_use: proxy;
        counters: nftables ebpf xdp proxy;
        counters_survive_reload: nftables ebpf xdp proxy;
        move_between_engines: nftables ebpf xdp proxy;
        held_through_moves: nftables ebpf xdp proxy;
        reload_under_load: nftables ebpf xdp proxy;
        ten_thousand_rules: nftables ebpf;
    }
    restart {
        tidy_end: nftables ebpf xdp proxy;
        clear_after_kill: nftables ebpf xdp proxy;
        forwards_when_killed: nftables ebpf xdp;
        restart_adopts: nftables ebpf xdp;
        restart_with_another_file: nftables ebpf xdp proxy;
        second_is_refused: nftables ebpf proxy;
        foreign_drop_is_named: nftables;
        settings_only_checked: nftables ebpf;
        conntrack_timeouts: nftables;
        no_table_without_need: ebpf proxy;
        one_owner_of_the_table: nftables;
        one_owner_of_the_pins: ebpf;
        control_socket_is_private: nftables ebpf proxy;
    }
    command {
        forward: nftables ebpf proxy;
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
