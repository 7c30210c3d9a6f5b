//! Mistakes in descriptions and files: each gets its own text, with its place, and status 1.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, Scenario, Tier};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "bad-input",
    tier: Tier::Input,
    about: "unknown key, wrong type, missing, truncated and non-PVH kernels, zero vCPUs, ...",
    limit: Duration::from_secs(120),
    run: mistakes,
}];

/// A mistake: what the description says, and what the error must contain.
struct Mistake {
    what: &'static str,
    toml: &'static str,
    wanted: &'static [&'static str],
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        what: "unknown key",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemroy = \"1G\"\n",
        wanted: &["bad-input.toml:4:", "memroy"],
    },
    Mistake {
        what: "unknown table",
        toml: "[hsot]\n\n[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemory = \"1G\"\n",
        wanted: &["bad-input.toml:1:", "hsot"],
    },
    Mistake {
        what: "wrong type",
        toml: "[[domain]]\nname = 5\nkernel = \"debian:cloud\"\nmemory = \"256M\"\n",
        wanted: &["bad-input.toml:2:", "name"],
    },
    Mistake {
        what: "no TOML at all",
        toml: "[[domain]\nname = \"a\"\n",
        wanted: &["bad-input.toml:1:", "not TOML"],
    },
    Mistake {
        what: "no domain",
        toml: "[host]\nlog_level = \"info\"\n",
        wanted: &["bad-input.toml:", "domain"],
    },
    Mistake {
        what: "missing kernel",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"no/such/kernel\"\nmemory = \"256M\"\n",
        wanted: &[
            "bad-input.toml:3:",
            "no/such/kernel",
            "there is no such file",
        ],
    },
    Mistake {
        what: "missing initrd",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\ninitrd = \"gone\"\n\
               memory = \"256M\"\n",
        wanted: &["bad-input.toml:4:", "gone", "there is no such file"],
    },
    Mistake {
        what: "kernel that is not in the cache",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:clod\"\nmemory = \"256M\"\n",
        wanted: &["bad-input.toml:3:", "debian:clod", "debian:cloud"],
    },
    Mistake {
        what: "truncated kernel",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"bad-input.half\"\nmemory = \"256M\"\n",
        wanted: &["bad-input.toml:3:", "bad-input.half", "truncated"],
    },
    Mistake {
        what: "kernel without a PVH entry",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"/bin/true\"\nmemory = \"256M\"\n",
        wanted: &["bad-input.toml:3:", "/bin/true", "PVH"],
    },
    Mistake {
        what: "kernel that is no kernel",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"bad-input.toml\"\nmemory = \"256M\"\n",
        wanted: &["bad-input.toml:3:", "kernel"],
    },
    Mistake {
        what: "zero vCPUs",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemory = \"256M\"\nvcpus = 0\n",
        wanted: &["bad-input.toml:5:", "0 vCPUs"],
    },
    Mistake {
        what: "memory without a unit",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemory = \"256\"\n",
        wanted: &["bad-input.toml:4:", "256M"],
    },
    Mistake {
        what: "too little memory for the kernel",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemory = \"32M\"\n",
        wanted: &["bad-input.toml:4:", "MiB"],
    },
    Mistake {
        what: "one name for two domains",
        toml: "[[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemory = \"256M\"\n\
               [[domain]]\nname = \"a\"\nkernel = \"debian:cloud\"\nmemory = \"256M\"\n",
        wanted: &["bad-input.toml:6:", "two domains"],
    },
];

fn mistakes(case: &Case<'_>) -> Result<()> {
    let artifacts = case.artifacts;
    let name = case.scenario.name;
    let config = artifacts.file(name, "toml");
    let kernel = artifacts.workspace().cache().join("guests/cloud/vmlinuz");
    let whole = fs::read(&kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let half = whole.get(..whole.len() / 2).unwrap_or_default();
    fs::write(artifacts.file(name, "half"), half).context("writing half a kernel")?;

    let mut log = String::new();
    let mut failures = Vec::new();
    for Mistake { what, toml, wanted } in MISTAKES {
        fs::write(&config, toml).context("writing a description")?;
        let (said, status) = image(case, &config.display().to_string())?;
        log += &format!("{what}: status {status:?}\n{said}\n");
        failures.extend(judge(what, &said, status, wanted));
    }
    let (said, status) = image(case, "no/such/system.toml")?;
    log += &format!("missing description: status {status:?}\n{said}\n");
    let wanted = &["no/such/system.toml", "cannot read the system description"];
    failures.extend(judge("missing description", &said, status, wanted));
    fs::write(artifacts.log(name), log).context("writing the log")?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Runs `cargo xtask image`; gives what it wrote to its error output, and its status.
fn image(case: &Case<'_>, config: &str) -> Result<(String, Option<i32>)> {
    let out = case.artifacts.file(case.scenario.name, "iso");
    let done = Command::new(std::env::current_exe().context("cannot find this program")?)
        .args(["image", "--config", config, "--output"])
        .arg(&out)
        .current_dir(case.artifacts.workspace().root())
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo xtask image")?;
    Ok((
        String::from_utf8_lossy(&done.stderr).into_owned(),
        done.status.code(),
    ))
}

fn judge(what: &str, said: &str, status: Option<i32>, wanted: &[&str]) -> Option<String> {
    if status != Some(1) {
        return Some(format!("{what}: exit status {status:?}, not 1"));
    }
    if said.contains("panicked at") {
        return Some(format!("{what}: the program panicked"));
    }
    let missing = wanted.iter().find(|words| !said.contains(**words))?;
    Some(format!(
        "{what}: the error does not say {missing:?}:\n{}",
        said.trim()
    ))
}
