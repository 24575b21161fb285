//! Conditions of `ready`: finds their ports, and reports those that a session cannot meet.

use crate::manifest::diagnostic::Step;
use crate::manifest::{After, Declaration, Diagnostic, Location, READY, rule};
use crate::name::nearest;
use crate::provider::{Allocation, Registry};

/// Returns the number of the port of each condition of a session, 0 for a command, and the diagnostics of conditions that
/// the session can never meet.
pub(super) fn ports(
    declaration: &Declaration,
    allocations: &[Allocation],
    registry: &Registry,
) -> (Vec<u16>, Vec<Diagnostic>) {
    let conditions = &declaration.text.ready;
    let named = if conditions.is_empty() { Vec::new() } else { named_ports(allocations, registry) };
    let mut diagnostics = Vec::new();
    let mut numbers = Vec::with_capacity(conditions.len());
    for (index, condition) in conditions.iter().enumerate() {
        let location = || declaration.locate(READY, Some(Step::Index(index)));
        let number = condition.port_name().map(|name| {
            let found = named.iter().find(|(port, _)| port == name);
            found.map(|(_, number)| *number).ok_or_else(|| no_port(name, &named, location().key("port")))
        });
        numbers.push(number.transpose().map_err(|found| diagnostics.push(found)).ok().flatten().unwrap_or(0));
        if condition.after == Some(After::Command) && declaration.text.command.is_none() {
            diagnostics.push(no_command(location().key("after")));
        }
    }
    (numbers, diagnostics)
}

/// Returns the named ports of a session. Those of a resource with the name of its kind come first.
fn named_ports(allocations: &[Allocation], registry: &Registry) -> Vec<(String, u16)> {
    let (own, named): (Vec<_>, Vec<_>) =
        allocations.iter().partition(|allocation| allocation.name() == allocation.kind);
    let ports = |allocation: &Allocation| Some(registry.get(&allocation.kind)?.named_ports(allocation));
    own.into_iter().chain(named).filter_map(ports).flatten().collect()
}

fn no_port(name: &str, ports: &[(String, u16)], location: Location) -> Diagnostic {
    let message = format!("the session has no port `{}`", name.escape_debug());
    let names = || ports.iter().map(|(port, _)| port.as_str());
    let label = match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "not a port of the session".to_owned(),
    };
    let help = if ports.is_empty() {
        "request a `port-range` with `names`, or write a `command`".to_owned()
    } else {
        format!("it has {}", names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
    };
    Diagnostic::new(rule::READY, location, message, label).with_help(help)
}

fn no_command(location: Location) -> Diagnostic {
    let message = "the session has no `command` to wait after";
    Diagnostic::new(rule::READY, location, message.to_owned(), "nothing starts")
        .with_help("add `command`, or write `after = \"setup\"`")
}
