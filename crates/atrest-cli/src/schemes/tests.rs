use clap::CommandFactory as _;

#[test]
fn the_help_of_cmek_lists_every_scheme() {
    let mut command = crate::cmd::Cli::command();
    for name in ["init", "status", "doctor"] {
        let command = command.find_subcommand_mut(name).expect(name);
        let (short, long) = (command.render_help(), command.render_long_help());
        // Lines are wrapped where there is no room.
        let plain = |text: String| text.split_whitespace().collect::<String>();
        let (short, long) = (plain(short.to_string()), plain(long.to_string()));
        for scheme in atrest_kms::schemes() {
            assert!(short.contains(&format!("{}:", scheme.name())), "{name}: {short}");
            assert!(long.contains(scheme.example()), "{name}: {long}");
        }
    }
}
