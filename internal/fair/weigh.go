package fair

import "time"

// A press is somebody below his share who found no room.
type press struct {
	holder *Holder
	at     time.Duration
}

// takeWeighed takes n of a kind if the others leave it to the holder.
func (t *Tree) takeWeighed(h *Holder, k Kind, n int64, c claim) Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		was := t.bounds[k].used.Load()
		if v := t.weighLocked(h, k, (h.taken[k].Load()+n)*c.parts, h.subnet.used[k].Load()+n, was+n, c.quiet); v != Granted {
			return v
		}
		if t.bounds[k].used.CompareAndSwap(was, was+n) {
			h.subnet.used[k].Add(n)
			h.taken[k].Add(n)
			return Granted
		}
	}
}

// weighLocked decides whether a holder may have own, its subnet of, and all together all. For what it can do without, own counts double.
func (t *Tree) weighLocked(h *Holder, k Kind, own, of, all int64, quiet bool) Verdict {
	b := &t.bounds[k]
	now := time.Since(t.began) + 1
	peer, other := t.wantedByOthers(h, k, now)
	switch {
	case peer && own > b.share():
		return PeerShare
	case other && of > b.share():
		return SubnetShare
	case all <= b.limit-b.reserve():
		return Granted
	case own > b.share(): // the rest is for others
		return Spent
	}
	if !quiet {
		t.press(press{h, now}, k)
	}
	most, room := b.first(), b.limit
	if h.known {
		most = b.share()
	}
	if of > b.reserve()/2 { // half of the reserve is for subnets that have little
		room -= b.reserve() / 2
	}
	if own <= most && all <= room {
		return Granted
	}
	return Full
}

// wantedByOthers reports whether another peer, and whether another subnet, has pressed lately.
func (t *Tree) wantedByOthers(h *Holder, k Kind, now time.Duration) (peer, subnet bool) {
	lately := false
	for _, p := range t.presses[k] {
		if p.holder == nil || now-p.at > wantedFor {
			continue
		}
		lately = true
		peer = peer || p.holder != h
		subnet = subnet || p.holder.subnet != h.subnet
	}
	if !lately {
		t.bounds[k].pressed.Store(0)
	}
	return peer, subnet
}

// press remembers who found no room: the newest, and the newest of another subnet, or else of another peer.
func (t *Tree) press(p press, k Kind) {
	last := &t.presses[k]
	if was := last[0]; was.holder != nil && was.holder != p.holder {
		second := last[1]
		differs := second.holder != nil && second.holder.subnet != p.holder.subnet && p.at-second.at <= wantedFor
		if was.holder.subnet != p.holder.subnet || !differs {
			last[1] = was
		}
	}
	last[0] = p
	t.bounds[k].pressed.Store(int64(p.at))
}
