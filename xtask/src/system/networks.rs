//! The host's `[[network]]` tables, and a domain's `[[domain.vif]]` tables.

use ::system::config::{MAX_NAME, is_valid_name};
use ::system::network::{
    Action, MAX_BURST, MAX_MORE_ADDRESSES, MAX_NETWORKS, MAX_RATE, MAX_RULES, MAX_VIFS, MIN_BURST,
    MIN_RATE, MacAddr, NetworkConfig, Nic, Rate, Rule, UplinkConfig, VifConfig,
};

use super::description::{bytes, check, required_text};
use super::problem::Problem;
use super::rules;
use super::table::{Located, Table, nearest};

/// The burst of a rate without one: a quarter of a MiB.
const USUAL_BURST: u64 = 1 << 18;

/// The networks, and which addresses are taken on them.
#[derive(Debug, Default)]
pub(super) struct Networks {
    configs: Vec<NetworkConfig>,
    taken: Vec<(u16, MacAddr)>,
}

impl Networks {
    /// Reads the host's tables.
    pub(super) fn read(root: &mut Table<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut networks = Self::default();
        for mut table in root.tables("network", "[[network]]", problems) {
            let name = required_text(&mut table, "name", r#"name = "lan""#, problems);
            let uplink = networks.read_uplink(&mut table, problems);
            table.finish(problems);
            if let Some(name) = name {
                let text = networks.name_problem(&name.value);
                check(problems, "name", &name, text);
                let name = name.value;
                networks.configs.push(NetworkConfig { name, uplink });
            }
        }
        networks
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.configs.iter().map(|network| network.name.as_str())
    }

    fn name_problem(&self, name: &str) -> Option<String> {
        if !is_valid_name(name) {
            return Some(format!(
                "\"{name}\" is no name for a network; use 1 to {MAX_NAME} letters, digits, '-', \
                 '_', '.'"
            ));
        }
        if self.configs.len() >= MAX_NETWORKS {
            return Some(format!("there are at most {MAX_NETWORKS} networks"));
        }
        let twice = self.names().any(|other| other == name);
        twice.then(|| format!("two networks are called \"{name}\"; give each its own name"))
    }

    fn read_uplink(
        &self,
        table: &mut Table<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<UplinkConfig> {
        let example = r#"uplink = "first""#;
        let is_there = table.has("uplink");
        let text = table.text("uplink", example, problems);
        if !is_there {
            let bounds = ["rate", "burst", "rules", "otherwise"];
            table.only_with(&bounds, "uplink", example, problems);
        }
        let text = text?;
        let (rate, rules, otherwise) = read_bounds(table, problems);
        let nic = Nic::parse(&text.value);
        let problem = match nic {
            None => Some(format!(
                "\"{}\" names no network card; write \"first\", its address such as \
                 \"52:54:00:12:34:56\", or its place such as \"00:03.0\"",
                text.value
            )),
            Some(nic) => self.card_problem(nic),
        };
        check(problems, "uplink", &text, problem);
        Some(UplinkConfig {
            nic: nic?,
            rate,
            rules,
            otherwise,
        })
    }

    fn card_problem(&self, nic: Nic) -> Option<String> {
        let has_it = |network: &&NetworkConfig| {
            let uplink = network.uplink.as_ref();
            uplink.is_some_and(|uplink| uplink.nic == nic)
        };
        let other = self.configs.iter().find(has_it)?;
        Some(format!(
            "network \"{}\" has this uplink, too; a network card belongs to one network",
            other.name
        ))
    }

    /// The networks as the archive describes them.
    pub(super) fn configs(self) -> Vec<NetworkConfig> {
        self.configs
    }

    /// Reads the tables of one domain, which has this name.
    pub(super) fn read_vifs(
        &mut self,
        domain: &mut Table<'_>,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Vec<VifConfig> {
        let tables = domain.tables("vif", "[[domain.vif]]", problems);
        let mut vifs = Vec::new();
        for (number, table) in tables.into_iter().enumerate() {
            match u8::try_from(number) {
                Ok(number) if usize::from(number) < MAX_VIFS => {
                    vifs.extend(self.read_vif(table, (name, number), problems));
                }
                _ => problems.push(Problem {
                    at: table.at(),
                    key: "vif".into(),
                    text: format!("a domain has at most {MAX_VIFS} interfaces"),
                }),
            }
        }
        vifs
    }

    fn read_vif(
        &mut self,
        mut table: Table<'_>,
        (domain, number): (&str, u8),
        problems: &mut Vec<Problem>,
    ) -> Option<VifConfig> {
        let at = table.at();
        let network = required_text(&mut table, "network", r#"network = "lan""#, problems);
        let mac = table.text("mac", r#"mac = "02:00:00:00:00:01""#, problems);
        let more = table.number("more_addresses", "more_addresses = 8", problems);
        let (rate, rules, otherwise) = read_bounds(&mut table, problems);
        table.finish(problems);

        let network = self.find(&network?, problems)?;
        let usual = VifConfig::new(network, domain, number);
        let mac = match mac {
            Some(mac) => read_mac(&mac, problems)?,
            None => Located {
                value: usual.mac,
                at,
            },
        };
        let pair = (network, mac.value);
        let twice = self.taken.contains(&pair).then(|| {
            format!(
                "another interface on this network has the address {}; give each its own",
                mac.value
            )
        });
        check(problems, "mac", &mac, twice);
        self.taken.push(pair);
        Some(VifConfig {
            mac: mac.value,
            more_addresses: more.map_or(0, |more| read_more(&more, problems)),
            rate,
            rules,
            otherwise,
            ..usual
        })
    }

    fn find(&self, network: &Located<String>, problems: &mut Vec<Problem>) -> Option<u16> {
        let found = self.names().position(|name| name == network.value);
        if let Some(found) = found {
            return u16::try_from(found).ok();
        }
        let remedy = match nearest(self.names(), &network.value) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => format!(
                "describe it by a [[network]] table with `name = \"{}\"`",
                network.value
            ),
        };
        let text = format!("there is no network \"{}\"; {remedy}", network.value);
        check(problems, "network", network, Some(text));
        None
    }
}

fn read_mac(text: &Located<String>, problems: &mut Vec<Problem>) -> Option<Located<MacAddr>> {
    let mac = text.value.parse::<MacAddr>().ok();
    let mac = mac.filter(|mac| mac.is_station());
    let problem = mac.is_none().then(|| {
        format!(
            "\"{}\" is no address of an interface; write six pairs of hexadecimal digits, the \
             first an even number, such as \"02:00:00:00:00:01\"",
            text.value
        )
    });
    check(problems, "mac", text, problem);
    let (value, at) = (mac?, text.at);
    Some(Located { value, at })
}

fn read_more(more: &Located<u32>, problems: &mut Vec<Problem>) -> u16 {
    let limit = u16::try_from(more.value).ok();
    let limit = limit.filter(|&limit| limit <= MAX_MORE_ADDRESSES);
    let problem = limit.is_none().then(|| {
        format!(
            "an interface cannot have {} more addresses; give it 0 to {MAX_MORE_ADDRESSES}",
            more.value
        )
    });
    check(problems, "more_addresses", more, problem);
    limit.unwrap_or(0)
}

/// What may pass: how much, and which packets.
fn read_bounds(
    table: &mut Table<'_>,
    problems: &mut Vec<Problem>,
) -> (Option<Rate>, Vec<Rule>, Action) {
    let rate = read_rate(table, problems);
    let rules = read_rules(table, problems);
    let actions = [("allow", Action::Allow), ("deny", Action::Deny)];
    (rate, rules, table.choice("otherwise", &actions, problems))
}

fn read_rate(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Option<Rate> {
    let rate = table.text("rate", r#"rate = "100M""#, problems);
    let burst = table.text("burst", r#"burst = "256K""#, problems);
    let mut amount = |key, text: &Located<String>, least, most| {
        let amount = bytes(&text.value).map(|amount| amount.unwrap_or(u64::MAX));
        let problem = match amount {
            Ok(amount) if (least..=most).contains(&amount) => None,
            Ok(_) => Some(format!(
                "it cannot be \"{}\"; choose {least} to {most} bytes",
                text.value
            )),
            Err(ref text) => Some(text.clone()),
        };
        check(problems, key, text, problem);
        amount.unwrap_or(least)
    };
    let bytes_per_second = rate.map(|rate| amount("rate", &rate, MIN_RATE, MAX_RATE));
    let of_burst = burst
        .as_ref()
        .map(|burst| amount("burst", burst, MIN_BURST, MAX_BURST));
    if let (None, Some(burst)) = (bytes_per_second, &burst) {
        let text = "there is no burst without a rate; add for example `rate = \"100M\"`";
        check(problems, "burst", burst, Some(text.into()));
    }
    Some(Rate {
        bytes_per_second: bytes_per_second?,
        burst: of_burst.unwrap_or(USUAL_BURST),
    })
}

fn read_rules(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<Rule> {
    let example = r#"rules = ["allow out tcp to 10.0.0.2 port 80"]"#;
    let lines = table.texts("rules", example, problems).unwrap_or_default();
    if let Some(beyond) = lines.get(MAX_RULES) {
        let text = format!("there are at most {MAX_RULES} rules");
        check(problems, "rules", beyond, Some(text));
    }
    let mut rules = Vec::new();
    for line in lines {
        match rules::parse(&line.value) {
            Ok(rule) => rules.push(rule),
            Err(text) => check(problems, "rules", &line, Some(text)),
        }
    }
    rules
}

/// A network with an uplink in the report of what was packed.
pub(super) fn show_uplink(network: &NetworkConfig) -> Option<String> {
    let uplink = network.uplink.as_ref()?;
    Some(format!(
        "network {}: uplink {}{}",
        network.name,
        uplink.nic,
        show_rules(&uplink.rules)
    ))
}

fn show_rules(rules: &[Rule]) -> String {
    match rules.len() {
        0 => String::new(),
        1 => " under 1 rule".to_owned(),
        count => format!(" under {count} rules"),
    }
}

/// An interface in the report of what was packed.
pub(super) fn show(vif: &VifConfig, networks: &[NetworkConfig]) -> String {
    let network = networks.get(usize::from(vif.network));
    let network = network.map_or("", |network| network.name.as_str());
    format!(", {} on {network}{}", vif.mac, show_rules(&vif.rules))
}
