package resume

import (
	"fmt"
	"net"

	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/lane"
)

// InBudget makes Conns keep what is sent, and hold what is received, only as far as the budgets have room, each a small part of its Window more.
// A Conn without room for what it is to keep waits, and one without room for what it receives ends with the error refused. Programs have no use
// for it.
func (o *Options) InBudget(kept, received flow.Budget, refused error) {
	o.memory = memory{kept, received, refused}
}

// ForSession returns what a session needs of the Conn under a resumable stream. Programs have no use for it.
func (c *Conn) ForSession() lane.Conn { return (*sessionConn)(c) }

// sessionConn is a Conn as a session sees it.
type sessionConn Conn

func (s *sessionConn) End(err error) {
	c := (*Conn)(s)
	c.flow.Lock()
	defer c.flow.Unlock()
	c.flow.ExpireLocked() // wakes a Write that blocks in the carrier
	c.flow.CloseLocked(err)
}

func (s *sessionConn) Heard() bool { return s.flow.Heard() > 0 }

func (s *sessionConn) ServeAgain(carrier net.Conn) error {
	if carrier == nil {
		return fmt.Errorf("%w: carrier is nil", ErrInvalid)
	}
	if s == nil || s.server == nil {
		_ = carrier.Close()
		return fmt.Errorf("%w: the Conn is of no Listener", ErrInvalid)
	}
	if !s.server.admit(carrier) {
		return net.ErrClosed
	}
	_, err := s.server.hear(carrier, forServe, (*Conn)(s))
	return err
}
