//! The host's apt sources: which Debian mirror it uses, and which keys that mirror is trusted with.
//!
//! Boards need packages of other architectures, and sometimes of another suite: the same mirror has them.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

/// One entry of the host's sources, without the fields that are not needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub uri: String,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// As written, with continuation lines: keyring paths, fingerprints or a key.
    pub signed_by: Option<String>,
}

impl Source {
    /// The same mirror as an apt source of one other suite.
    pub fn for_suite(&self, suite: &str) -> String {
        let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uri);
        if let Some(signed_by) = &self.signed_by {
            text += &format!("Signed-By: {signed_by}\n");
        }
        text
    }
}

/// The host's Debian mirror and the suite the host is installed from.
pub fn host_mirror() -> Result<(Source, String)> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read `/etc/os-release`")?;
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    if field("ID").as_deref() != Some("debian") {
        bail!(
            "emulated boards are made from Debian's packages through the host's own apt, and this host is not Debian"
        );
    }
    let mut sources = Vec::new();
    let mut read = |path: &Path| -> Result<()> {
        let parse = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => parse_stanzas,
            Some("list") => parse_one_line_entries,
            _ => return Ok(()),
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        sources.extend(parse(&text));
        Ok(())
    };
    let main = Path::new("/etc/apt/sources.list");
    if main.exists() {
        read(main)?;
    }
    let mut paths: Vec<_> = match fs::read_dir("/etc/apt/sources.list.d") {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    for path in &paths {
        read(path)?;
    }
    choose(&sources, field("VERSION_CODENAME").as_deref().unwrap_or_default()).context(
        "no entry for Debian's own suite with the component `main` among apt's sources (`/etc/apt/sources.list.d`)",
    )
}

/// The entry with the host's own suite, which `testing` and `unstable` hosts call by that name.
fn choose(sources: &[Source], codename: &str) -> Option<(Source, String)> {
    [codename, "testing", "unstable", "sid", "stable", "oldstable"].iter().find_map(|name| {
        let fits = |source: &&Source| {
            source.suites.iter().any(|suite| suite == name) && source.components.iter().any(|name| name == "main")
        };
        sources.iter().find(fits).map(|source| (source.clone(), (*name).to_owned()))
    })
}

/// The deb822 style of `*.sources`.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let list = |value: &str| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let mut lines = stanza.lines().skip_while(|line| !starts_field(line, name));
            let mut value = lines.next()?[name.len() + 1..].trim().to_owned();
            for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
                value += &format!("\n{line}");
            }
            Some(value)
        };
        let disabled = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let (Some(types), Some(uris), Some(suites)) = (field("Types"), field("URIs"), field("Suites")) else {
            continue;
        };
        if disabled || !list(&types).iter().any(|kind| kind == "deb") {
            continue;
        }
        sources.extend(list(&uris).into_iter().map(|uri| Source {
            uri,
            suites: list(&suites),
            components: list(&field("Components").unwrap_or_default()),
            signed_by: field("Signed-By"),
        }));
    }
    sources
}

fn starts_field(line: &str, name: &str) -> bool {
    let (Some(head), Some(b':')) = (line.get(..name.len()), line.as_bytes().get(name.len())) else { return false };
    head.eq_ignore_ascii_case(name)
}

/// The older style: `deb [signed-by=KEYRING] URI SUITE COMPONENT…`.
fn parse_one_line_entries(text: &str) -> Vec<Source> {
    let entry = |line: &str| {
        let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim();
        let rest = rest.split('#').next().unwrap_or_default();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut fields = rest.split_whitespace().map(str::to_owned);
        let (uri, suite) = (fields.next()?, fields.next()?);
        let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        Some(Source {
            uri,
            suites: vec![suite],
            components: fields.collect(),
            signed_by: signed_by.map(|value| value.replace(',', " ")),
        })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
# a comment\nTypes: deb deb-src\n# another\nURIs: http://one.test/debian\nSuites: bookworm bookworm-updates
Components: main contrib\nSigned-By: /k/one.gpg

Types: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main

types: deb\nuris: http://sec.test/debian-security\nsuites: bookworm-security\ncomponents: main
signed-by:\n -----BEGIN\n .\n abc
";

    #[test]
    fn stanzas() {
        let sources = parse_stanzas(STANZAS);
        let uris: Vec<&str> = sources.iter().map(|source| source.uri.as_str()).collect();
        assert_eq!(uris, ["http://one.test/debian", "http://sec.test/debian-security"]);
        assert_eq!(sources[1].signed_by.as_deref(), Some("\n -----BEGIN\n .\n abc"));
        let (source, suite) = choose(&sources, "bookworm").unwrap();
        assert_eq!(suite, "bookworm");
        assert_eq!(
            source.for_suite("sid"),
            "Types: deb\nURIs: http://one.test/debian\nSuites: sid\nComponents: main\nSigned-By: /k/one.gpg\n"
        );
        assert_eq!(choose(&sources, "trixie"), None);
    }

    #[test]
    fn one_line_entries() {
        let text = "# deb http://no.test x main\ndeb-src http://no.test trixie main\n\
                    deb [arch=amd64 signed-by=/k/a.gpg,/k/b.gpg] http://one.test/debian trixie main contrib # why\n";
        let sources = parse_one_line_entries(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(choose(&sources, "trixie").unwrap().0, sources[0]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/k/a.gpg /k/b.gpg"));
    }
}
