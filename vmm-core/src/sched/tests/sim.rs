//! A machine in which nothing happens but scheduling. A tick is a microsecond.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::sched::balance::{self, Bounds, Clock};
use crate::sched::bvt::{Account, Share};
use crate::sched::heap::{Seat, Seated};
use crate::sched::queue::{Place, Queue};

/// The context-switch allowance.
pub(super) const ALLOWANCE: u64 = 5_000;

/// What a vCPU does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// Runs for ever.
    Spin,
    /// Runs for a while and sleeps for a while, each up to so many ticks.
    Sleep { run: u64, sleep: u64 },
    /// Runs for a while, up to so many ticks, and lets others go first.
    Yield { run: u64 },
}

/// What a vCPU is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) share: Share,
    pub(super) plan: Plan,
    pub(super) affinity: u64,
    /// When it begins, and when it sleeps for good.
    pub(super) life: (u64, u64),
}

impl Kind {
    pub(super) fn new(weight: u32, plan: Plan) -> Self {
        Self {
            share: Share::new(NonZeroU32::new(weight).unwrap()),
            plan,
            affinity: u64::MAX,
            life: (0, u64::MAX),
        }
    }
}

#[derive(Debug)]
pub(super) struct Member {
    id: usize,
    seat: Seat,
}

impl Member {
    pub(super) fn new(id: usize) -> Self {
        let seat = Seat::new();
        Self { id, seat }
    }

    pub(super) fn id(&self) -> usize {
        self.id
    }
}

impl Seated for Rc<Member> {
    fn seat(&self) -> &Seat {
        &self.seat
    }

    fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

#[derive(Debug)]
pub(super) struct Vcpu {
    pub(super) kind: Kind,
    pub(super) account: Account,
    member: Rc<Member>,
    home: usize,
    /// Ticks until it does what it plans.
    burst: u64,
    wakes_at: Option<u64>,
    /// Ticks it has run, up to the present turn.
    served: u64,
    /// When it last woke, until it runs.
    woke: Option<u64>,
    /// The longest it waited after it had woken.
    pub(super) latency: u64,
}

#[derive(Debug)]
struct Cpu {
    queue: Queue<Rc<Member>>,
    running: Option<(usize, u64)>,
    shift: u64,
    next_balance: u64,
}

#[derive(Debug)]
pub(super) struct Sim {
    pub(super) now: u64,
    cpus: Vec<Cpu>,
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) switches: u64,
    pub(super) moves: u64,
    random: u64,
}

impl Sim {
    pub(super) fn new(cpus: usize, kinds: &[Kind], seed: u64) -> Self {
        let cpu = |_| Cpu {
            queue: Queue::new(ALLOWANCE),
            running: None,
            shift: 0,
            next_balance: 0,
        };
        let mut sim = Self {
            now: 0,
            cpus: (0..cpus).map(cpu).collect(),
            vcpus: Vec::new(),
            switches: 0,
            moves: 0,
            random: seed | 1,
        };
        for (id, kind) in kinds.iter().enumerate() {
            let allowed = (0..cpus).filter(|cpu| kind.affinity >> cpu & 1 != 0);
            let allowed: Vec<_> = allowed.collect();
            let burst = sim.burst(kind.plan);
            sim.vcpus.push(Vcpu {
                kind: *kind,
                account: Account::new(kind.share),
                member: Rc::new(Member::new(id)),
                home: allowed[id % allowed.len()],
                burst,
                wakes_at: Some(kind.life.0),
                served: 0,
                woke: None,
                latency: 0,
            });
        }
        sim
    }

    /// Ticks that a vCPU has run.
    pub(super) fn served(&self, id: usize) -> u64 {
        let vcpu = &self.vcpus[id];
        let turn = self.cpus[vcpu.home].running;
        let turn = turn.filter(|(running, _)| *running == id);
        vcpu.served + turn.map_or(0, |(_, since)| self.now - since)
    }

    pub(super) fn all_served(&self) -> Vec<u64> {
        (0..self.vcpus.len()).map(|id| self.served(id)).collect()
    }

    fn up_to(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        1 + self.random % limit.max(1)
    }

    fn burst(&mut self, plan: Plan) -> u64 {
        match plan {
            Plan::Spin => u64::MAX,
            Plan::Sleep { run, .. } | Plan::Yield { run } => self.up_to(run),
        }
    }

    /// Runs until `end`.
    pub(super) fn run(&mut self, end: u64) {
        self.settle();
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<u64> {
        let wakes = self.vcpus.iter().filter_map(|vcpu| vcpu.wakes_at);
        let cpus = self.cpus.iter().flat_map(|cpu| {
            let burst = cpu.running.map(|turn| self.end_of_burst(turn));
            let balance = (cpu.queue.has_waiting() && self.cpus.len() > 1)
                .then_some(cpu.next_balance.max(self.now + 1));
            let until = cpu.running.map(|_| cpu.queue.until(self.now));
            [burst, balance, until].into_iter().flatten()
        });
        wakes.chain(cpus).filter(|at| *at != u64::MAX).min()
    }

    fn end_of_burst(&self, (id, since): (usize, u64)) -> u64 {
        let Vcpu { burst, kind, .. } = &self.vcpus[id];
        since.saturating_add(*burst).min(kind.life.1)
    }

    /// Does all that is due now.
    fn settle(&mut self) {
        for cpu in 0..self.cpus.len() {
            self.finish_burst(cpu);
        }
        for id in 0..self.vcpus.len() {
            if self.vcpus[id].wakes_at.is_some_and(|at| at <= self.now) {
                self.wake(id);
            }
        }
        for cpu in 0..self.cpus.len() {
            self.choose(cpu);
        }
        for cpu in 0..self.cpus.len() {
            self.share_out(cpu);
        }
    }

    fn wake(&mut self, id: usize) {
        let vcpu = &mut self.vcpus[id];
        vcpu.wakes_at = None;
        vcpu.woke = Some(self.now);
        let cpu = &mut self.cpus[vcpu.home];
        let member = Rc::clone(&vcpu.member);
        let place = cpu.queue.wake(&mut vcpu.account, self.now);
        cpu.queue.insert(place, member);
    }

    fn end_turn(&mut self, cpu: usize) -> Option<usize> {
        let (id, since) = self.cpus[cpu].running.take()?;
        let vcpu = &mut self.vcpus[id];
        let ran = self.now - since;
        vcpu.served += ran;
        if vcpu.burst != u64::MAX {
            vcpu.burst -= ran;
        }
        self.cpus[cpu].queue.end(&mut vcpu.account, self.now);
        Some(id)
    }

    fn finish_burst(&mut self, cpu: usize) {
        let Some(turn) = self.cpus[cpu].running else {
            return;
        };
        if self.end_of_burst(turn) > self.now {
            return;
        }
        let (id, _) = turn;
        let Kind { plan, life, .. } = self.vcpus[id].kind;
        let over = life.1 <= self.now;
        let queue = &self.cpus[cpu].queue;
        if !over && matches!(plan, Plan::Yield { .. }) && !queue.may_yield(self.now) {
            self.vcpus[id].burst += self.up_to(ALLOWANCE);
            return;
        }
        self.end_turn(cpu);
        self.vcpus[id].burst = self.burst(plan);
        if over || matches!(plan, Plan::Sleep { .. }) {
            self.vcpus[id].account.sleep(self.now);
        }
        let member = Rc::clone(&self.vcpus[id].member);
        match plan {
            _ if over => {}
            Plan::Sleep { sleep, .. } => {
                let sleep = self.up_to(sleep);
                self.vcpus[id].wakes_at = Some(self.now + sleep);
            }
            _ => {
                let queue = &mut self.cpus[cpu].queue;
                let place = queue.behind_first(&self.vcpus[id].account);
                queue.insert(place, member);
            }
        }
    }

    fn choose(&mut self, cpu: usize) {
        if self.cpus[cpu].queue.is_over(self.now)
            && let Some(id) = self.end_turn(cpu)
        {
            let vcpu = &self.vcpus[id];
            let member = Rc::clone(&vcpu.member);
            let place = Place::of(&vcpu.account);
            self.cpus[cpu].queue.insert(place, member);
        }
        if self.cpus[cpu].running.is_none()
            && let Some(member) = self.cpus[cpu].queue.pop()
        {
            let vcpu = &mut self.vcpus[member.id];
            self.cpus[cpu].queue.begin(&vcpu.account, self.now);
            self.cpus[cpu].running = Some((member.id, self.now));
            self.switches += 1;
            if let Some(woke) = vcpu.woke.take() {
                vcpu.latency = vcpu.latency.max(self.now - woke);
            }
        }
    }

    /// Passes on what others can run sooner.
    fn share_out(&mut self, cpu: usize) {
        while let Some(idle) = self.idle_for(cpu) {
            self.pass(cpu, idle);
            self.choose(idle);
        }
        if self.cpus[cpu].next_balance > self.now || !self.cpus[cpu].queue.has_waiting() {
            return;
        }
        self.cpus[cpu].next_balance = self.now + ALLOWANCE;
        let others = !(1u64 << cpu);
        let vcpus = &self.vcpus;
        let movable = |member: &Rc<Member>| vcpus[member.id].kind.affinity & others != 0;
        let Some(first) = self.cpus[cpu].queue.first_of(movable) else {
            return;
        };
        let id = first.vcpu.id;
        let avt = first.avt.wrapping_add(self.cpus[cpu].shift);
        let kind = self.vcpus[id].kind;
        let clocks = self.cpus.iter().enumerate().filter_map(|(other, state)| {
            let allowed = other != cpu && kind.affinity >> other & 1 != 0;
            let time = state.queue.clock(self.now).filter(|_| allowed)?;
            Some(Clock {
                cpu: u32::try_from(other).unwrap(),
                time: time.wrapping_add(state.shift),
            })
        });
        let mut forfeits = Vec::new();
        let bounds = Bounds::with_allowance(ALLOWANCE);
        let decision = balance::decide(avt, &kind.share, bounds, clocks, |other, ticks| {
            forfeits.push((other, ticks));
        });
        forfeits.push((u32::try_from(cpu).unwrap(), decision.forfeit));
        for (other, ticks) in forfeits {
            let shift = &mut self.cpus[other as usize].shift;
            *shift = shift.wrapping_add(ticks);
        }
        if let Some(target) = decision.target {
            self.pass(cpu, target as usize);
            self.choose(target as usize);
        }
    }

    /// An idle pCPU that a vCPU waiting here may run on.
    fn idle_for(&self, cpu: usize) -> Option<usize> {
        let wanted = |idle: &usize| {
            let may = |member: &Rc<Member>| self.vcpus[member.id].kind.affinity >> idle & 1 != 0;
            self.cpus[cpu].queue.first_of(may).is_some()
        };
        let idle = |other: &usize| {
            let other = &self.cpus[*other];
            other.running.is_none() && !other.queue.has_waiting()
        };
        (0..self.cpus.len()).filter(idle).find(wanted)
    }

    fn pass(&mut self, from: usize, to: usize) {
        let vcpus = &self.vcpus;
        let may = |member: &Rc<Member>| vcpus[member.id].kind.affinity >> to & 1 != 0;
        let Some(member) = self.cpus[from].queue.pop_of(may) else {
            return;
        };
        let vcpu = &mut self.vcpus[member.id];
        vcpu.home = to;
        self.moves += 1;
        let common = vcpu.account.avt().wrapping_add(self.cpus[from].shift);
        let target = &mut self.cpus[to];
        if target.queue.clock(self.now).is_none() {
            target.shift = common.wrapping_sub(target.queue.svt(self.now));
        }
        vcpu.account.move_to(common.wrapping_sub(target.shift));
        target.queue.insert(Place::of(&vcpu.account), member);
    }
}
