//! RabbitMQ's machine-readable specifications, and the union of their methods.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// One specification.
#[derive(Debug)]
pub(crate) struct Spec {
    classes: Vec<SpecClass>,
}

#[derive(Debug)]
struct SpecClass {
    name: String,
    id: u16,
    methods: Vec<SpecMethod>,
}

#[derive(Debug)]
struct SpecMethod {
    name: String,
    id: u16,
    has_content: bool,
    arguments: Vec<(String, Kind)>,
}

/// The type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bit,
    U8,
    U16,
    U32,
    U64,
    Timestamp,
    ShortString,
    LongString,
    Table,
}

/// A method of either specification or, mostly, of both.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) class: String,
    pub(crate) name: String,
    pub(crate) class_id: u16,
    pub(crate) id_08: Option<u16>,
    pub(crate) id_091: Option<u16>,
    pub(crate) has_content: bool,
    pub(crate) arguments: Vec<Argument>,
}

#[derive(Debug, Clone)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Whether 0-8 has it; 0-9-1 has all arguments of the methods that it has.
    pub(crate) is_in_08: bool,
}

impl Method {
    /// `queue.declare`
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.class, self.name)
    }

    /// `QueueDeclare`
    pub(crate) fn variant(&self) -> String {
        [self.class.as_str(), self.name.as_str()]
            .iter()
            .flat_map(|name| name.split('-'))
            .map(capitalized)
            .collect()
    }
}

impl Argument {
    /// `routing_key`
    pub(crate) fn field(&self) -> String {
        match self.name.as_str() {
            "type" => "kind".to_owned(),
            name => name.replace('-', "_"),
        }
    }
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

impl Spec {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let mut domains = HashMap::new();
        for domain in array(&json, "domains")? {
            let name = domain[0].as_str().context("a domain without a name")?;
            domains.insert(name, domain[1].as_str().context("a domain without a type")?);
        }
        let classes = array(&json, "classes")?.iter().map(|class| parse_class(class, &domains));
        Ok(Self { classes: classes.collect::<anyhow::Result<_>>()? })
    }

    fn method(&self, class: &str, name: &str) -> Option<&SpecMethod> {
        let class = self.classes.iter().find(|candidate| candidate.name == class)?;
        class.methods.iter().find(|candidate| candidate.name == name)
    }
}

fn parse_class(class: &Value, domains: &HashMap<&str, &str>) -> anyhow::Result<SpecClass> {
    let name = string(class, "name")?;
    let methods = array(class, "methods")?.iter().map(|method| parse_method(method, domains));
    let methods = methods.collect::<anyhow::Result<_>>().with_context(|| format!("in class {name}"))?;
    Ok(SpecClass { id: id(class)?, name, methods })
}

fn parse_method(method: &Value, domains: &HashMap<&str, &str>) -> anyhow::Result<SpecMethod> {
    let name = string(method, "name")?;
    let arguments = array(method, "arguments")?.iter().map(|argument| parse_argument(argument, domains));
    let arguments = arguments.collect::<anyhow::Result<_>>().with_context(|| format!("in method {name}"))?;
    let has_content = method.get("content").and_then(Value::as_bool).unwrap_or(false);
    Ok(SpecMethod { id: id(method)?, name, has_content, arguments })
}

fn parse_argument(argument: &Value, domains: &HashMap<&str, &str>) -> anyhow::Result<(String, Kind)> {
    let name = string(argument, "name")?;
    let kind = match (argument.get("type"), argument.get("domain")) {
        (Some(kind), _) => kind.as_str(),
        (None, Some(domain)) => domain.as_str().and_then(|domain| domains.get(domain).copied()),
        (None, None) => None,
    };
    let kind = match kind.with_context(|| format!("argument {name} has no type"))? {
        "bit" => Kind::Bit,
        "octet" => Kind::U8,
        "short" => Kind::U16,
        "long" => Kind::U32,
        "longlong" => Kind::U64,
        "timestamp" => Kind::Timestamp,
        "shortstr" => Kind::ShortString,
        "longstr" => Kind::LongString,
        "table" => Kind::Table,
        other => bail!("argument {name} has the unknown type {other}"),
    };
    Ok((name, kind))
}

fn array<'a>(json: &'a Value, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    json.get(key).and_then(Value::as_array).with_context(|| format!("no list of {key}"))
}

fn string(json: &Value, key: &str) -> anyhow::Result<String> {
    Ok(json.get(key).and_then(Value::as_str).with_context(|| format!("no {key}"))?.to_owned())
}

fn id(json: &Value) -> anyhow::Result<u16> {
    let id = json.get("id").and_then(Value::as_u64).context("no id")?;
    Ok(u16::try_from(id)?)
}

/// The methods of both specifications, ordered by id, for the classes of 0-9-1. The other classes of 0-8
/// (`file`, `stream`, `dtx`, `tunnel`, `test`) were never served.
pub(crate) fn merge(spec_08: &Spec, spec_091: &Spec) -> anyhow::Result<Vec<Method>> {
    let mut methods = Vec::new();
    for class in &spec_091.classes {
        let class_08 = spec_08.classes.iter().find(|candidate| candidate.name == class.name);
        ensure!(class_08.is_none_or(|other| other.id == class.id), "two ids for class {}", class.name);
        let mut names: Vec<&str> = class.methods.iter().map(|method| method.name.as_str()).collect();
        let only_08 = class_08.iter().flat_map(|class| &class.methods).map(|method| method.name.as_str());
        names.extend(only_08.filter(|name| spec_091.method(&class.name, name).is_none()));
        for name in names {
            let (old, new) = (spec_08.method(&class.name, name), spec_091.method(&class.name, name));
            methods.push(merge_method(class, old, new).with_context(|| format!("{}.{name}", class.name))?);
        }
    }
    methods.sort_by_key(|method| (method.class_id, method.id_091.or(method.id_08), method.id_091.is_none()));
    Ok(methods)
}

fn merge_method(
    class: &SpecClass,
    old: Option<&SpecMethod>,
    new: Option<&SpecMethod>,
) -> anyhow::Result<Method> {
    let any = new.or(old).context("in neither specification")?;
    let arguments = match (old, new) {
        (Some(old), Some(new)) => {
            ensure!(old.has_content == new.has_content, "content in one specification only");
            merge_arguments(&old.arguments, &new.arguments)?
        }
        _ => any.arguments.iter().map(|argument| present(argument, true)).collect(),
    };
    check_bits(&arguments)?;
    Ok(Method {
        class: class.name.clone(),
        name: any.name.clone(),
        class_id: class.id,
        id_08: old.map(|method| method.id),
        id_091: new.map(|method| method.id),
        has_content: any.has_content,
        arguments,
    })
}

/// The arguments of 0-9-1. Those of 0-8 must be the same but for some that it lacks.
fn merge_arguments(old: &[(String, Kind)], new: &[(String, Kind)]) -> anyhow::Result<Vec<Argument>> {
    let mut merged = Vec::new();
    let mut old = old.iter().peekable();
    for argument in new {
        let is_in_08 = old.next_if_eq(&argument).is_some();
        merged.push(present(argument, is_in_08));
    }
    if let Some((name, _)) = old.next() {
        bail!("argument {name} is different, or is missing, in 0-9-1");
    }
    Ok(merged)
}

fn present((name, kind): &(String, Kind), is_in_08: bool) -> Argument {
    Argument { name: name.clone(), kind: *kind, is_in_08 }
}

/// Adjacent bits share octets, which is simple only while there are few and all are always there.
fn check_bits(arguments: &[Argument]) -> anyhow::Result<()> {
    for run in arguments.chunk_by(|a, b| a.kind == Kind::Bit && b.kind == Kind::Bit) {
        ensure!(run.len() <= 8, "more than eight adjacent bits");
        let is_optional = run.iter().any(|argument| argument.kind == Kind::Bit && !argument.is_in_08);
        ensure!(!is_optional, "a bit that 0-8 lacks");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(arguments: &str) -> Spec {
        let text = format!(
            r#"{{"domains": [["path", "shortstr"]], "classes": [{{"name": "tea", "id": 7, "methods": [
                {{"name": "pour-out", "id": 10, "arguments": [{arguments}]}}
            ]}}]}}"#
        );
        Spec::parse(&text).unwrap()
    }

    const NAME: &str = r#"{"name": "name", "domain": "path"}"#;
    const HOT: &str = r#"{"name": "hot", "type": "bit"}"#;
    const TABLE: &str = r#"{"name": "type", "type": "table"}"#;

    fn arguments(old: &[&str], new: &[&str]) -> Result<Vec<(String, Kind, bool)>, String> {
        let methods =
            merge(&spec(&old.join(",")), &spec(&new.join(","))).map_err(|error| format!("{error:#}"))?;
        let arguments = methods[0].arguments.iter();
        Ok(arguments.map(|argument| (argument.field(), argument.kind, argument.is_in_08)).collect())
    }

    #[test]
    fn names_become_rust_names() {
        let methods = merge(&spec(""), &spec("")).unwrap();
        assert_eq!(
            (methods[0].variant(), methods[0].full_name()),
            ("TeaPourOut".into(), "tea.pour-out".into())
        );
    }

    #[test]
    fn an_argument_may_be_missing_in_08() {
        let expected = [("name".into(), Kind::ShortString, true), ("kind".into(), Kind::Table, false)];
        assert_eq!(arguments(&[NAME], &[NAME, TABLE]), Ok(expected.to_vec()));
    }

    #[test]
    fn other_differences_are_refused() {
        let different = |name| format!("tea.pour-out: argument {name} is different, or is missing, in 0-9-1");
        assert_eq!(arguments(&[NAME], &[]), Err(different("name")));
        assert_eq!(arguments(&[NAME, HOT], &[HOT, NAME]), Err(different("hot")));
        assert_eq!(arguments(&[], &[HOT]), Err("tea.pour-out: a bit that 0-8 lacks".into()));
    }

    #[test]
    fn bits_of_more_than_one_octet_are_refused() {
        let nine = [HOT; 9];
        assert_eq!(arguments(&nine, &nine), Err("tea.pour-out: more than eight adjacent bits".into()));
    }
}
