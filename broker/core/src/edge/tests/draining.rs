//! Clients are sent away a few at a time.

use rialto_protocol::v1;

use super::rig::{Rig, decode};
use crate::io::Input;

const CLIENTS: usize = 100;

fn told(rig: &mut Rig, conns: &[crate::io::ConnId]) -> usize {
    let frames = conns.iter().flat_map(|conn| rig.frames(*conn));
    frames
        .map(|frame| decode::<v1::GoAway>(&frame))
        .filter(|go_away| go_away.reconnect_window_ms == 500)
        .count()
}

#[test]
fn everybody_is_told_during_the_first_half_of_the_window() {
    let mut rig = Rig::new();
    let conns: Vec<_> = (0..CLIENTS)
        .map(|number| rig.connect(&format!("user {number}")))
        .collect();
    rig.input(Input::Drain { window_ms: 1_000 });
    assert_eq!(told(&mut rig, &conns), 4, "of 25 steps");
    rig.pass_ms(240);
    assert_eq!(told(&mut rig, &conns), 48);
    rig.pass_ms(260);
    assert_eq!(told(&mut rig, &conns), CLIENTS - 52);
}

#[test]
fn a_second_drain_without_a_window_tells_the_rest_at_once() {
    let mut rig = Rig::new();
    let conns: Vec<_> = (0..CLIENTS)
        .map(|number| rig.connect(&format!("user {number}")))
        .collect();
    rig.input(Input::Drain { window_ms: 1_000 });
    assert_eq!(told(&mut rig, &conns), 4);
    rig.input(Input::Drain { window_ms: 0 });
    let rest = conns.iter().flat_map(|conn| rig.frames(*conn)).count();
    assert_eq!(rest, CLIENTS - 4);
}
