package client

import (
	"bytes"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/store"
)

// Bounds of user-interactive authentication under way. They hold for strangers
// and for users apart, so that strangers cannot push users out.
const (
	maxStageSessions = 512
	maxStageBytes    = 256 << 10        // of the bodies of first requests
	stageLifetime    = 15 * time.Minute // from the first request
)

// proof is what the completed stages of a session have shown.
type proof struct {
	completed         []string
	user              store.UserNum // whose password was given; 0: nobody's
	registrationToken string        // which token was given
}

// stageSession is user-interactive authentication under way. It is bound to the
// method, path, user and body of its first request. What tables hand out is a
// copy.
type stageSession struct {
	id      string
	request stageRequest
	flows   []flow
	proof   proof
	expires time.Time
}

// stageRequest is what a session is bound to.
type stageRequest struct {
	method, path string
	user         store.UserNum // 0: a stranger
	flows        []flow
	body         jsontext.Value // canonical
	now          time.Time
}

// challenge is the answer to a request that has not completed a flow.
func (st *stageSession) challenge() *challenge {
	return &challenge{
		Completed: st.proof.completed, Flows: st.flows, Params: map[string]struct{}{}, Session: st.id,
	}
}

// refuse is the answer to a stage that failed for a reason.
func (st *stageSession) refuse(reason *api.Error) *challenge {
	c := st.challenge()
	c.Code, c.Text = reason.Code, reason.Text
	return c
}

// complete says whether a flow is complete. Stages of a flow are to be completed
// in order, which one-stage flows cannot fail to do.
func (st *stageSession) complete() bool {
	return slices.ContainsFunc(st.flows, func(f flow) bool {
		return len(st.proof.completed) >= len(f.Stages) &&
			slices.Equal(f.Stages, st.proof.completed[:len(f.Stages)])
	})
}

// stageSessions are all sessions under way. They live in memory: a restart makes
// clients begin anew, and a flood of beginnings costs no writes.
type stageSessions struct {
	mu     sync.Mutex // guards the tables
	tables [2]stageTable
}

// stageTable has the sessions of strangers (0) or of users (1), oldest first.
type stageTable struct {
	sessions []*stageSession
	bytes    int
}

// enter returns the session id and the body that holds for a request, or begins a
// session where id is empty or not known any more. The error is M_FORBIDDEN where
// the session belongs to another request.
func (t *stageSessions) enter(id string, req stageRequest) (*stageSession, jsontext.Value, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(req.now)
	st := t.find(id)
	if st == nil {
		st = t.begin(req)
		return st.copy(), req.body, nil
	}
	first := &st.request
	if first.method != req.method || first.path != req.path || first.user != req.user {
		return nil, nil, api.ErrForbidden.Because("This session belongs to another request")
	}
	switch {
	case isEmptyObject(req.body) || bytes.Equal(req.body, first.body):
	case isEmptyObject(first.body), req.user == 0:
		// A client asks for the flows before it knows what it wants; a stranger
		// has nothing yet that another body could turn against.
		t.table(st).bytes += len(req.body) - len(first.body)
		first.body = req.body
	default:
		return nil, nil, api.ErrForbidden.Because("The request has changed while it was being authenticated")
	}
	return st.copy(), first.body, nil
}

// begin makes a session and drops the oldest ones where there are too many.
func (t *stageSessions) begin(req stageRequest) *stageSession {
	st := &stageSession{id: rand.Text(), request: req, flows: req.flows, expires: req.now.Add(stageLifetime)}
	table := t.table(st)
	table.sessions = append(table.sessions, st)
	table.bytes += len(req.body)
	for len(table.sessions) > 1 && (len(table.sessions) > maxStageSessions || table.bytes > maxStageBytes) {
		table.remove(0)
	}
	return st
}

// state returns how a session stands now and whether a flow is complete; that of
// one that was dropped meanwhile is not.
func (t *stageSessions) state(st *stageSession) (now *stageSession, complete bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.find(st.id); known != nil {
		return known.copy(), known.complete()
	}
	return st, false
}

// complete notes that a stage was completed and what it showed.
func (t *stageSessions) complete(st *stageSession, stage string, shown proof) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.find(st.id)
	if known == nil || slices.Contains(known.proof.completed, stage) {
		return
	}
	p := &known.proof
	p.completed = append(slices.Clone(p.completed), stage)
	if shown.user != 0 {
		p.user = shown.user
	}
	if shown.registrationToken != "" {
		p.registrationToken = shown.registrationToken
	}
}

// revoke takes back a stage whose proof has lost its value.
func (t *stageSessions) revoke(st *stageSession, stage string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.find(st.id); known != nil {
		p := &known.proof
		p.completed = slices.DeleteFunc(slices.Clone(p.completed), func(s string) bool { return s == stage })
		if stage == stageRegistrationToken {
			p.registrationToken = ""
		}
	}
}

// holding counts the sessions other than st (nil: all of them) that have shown a
// registration token.
func (t *stageSessions) holding(token string, st *stageSession, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	n := 0
	for _, other := range t.tables[0].sessions {
		if (st == nil || other.id != st.id) && other.proof.registrationToken == token {
			n++
		}
	}
	return n
}

// get returns a session by its ID, nil where there is none; for fallback pages.
func (t *stageSessions) get(id string, now time.Time) *stageSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if st := t.find(id); st != nil {
		return st.copy()
	}
	return nil
}

// drop forgets a session.
func (t *stageSessions) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.tables {
		table := &t.tables[i]
		if at := table.index(id); at >= 0 {
			table.remove(at)
		}
	}
}

func (t *stageSessions) find(id string) *stageSession {
	for i := range t.tables {
		table := &t.tables[i]
		if at := table.index(id); at >= 0 {
			return table.sessions[at]
		}
	}
	return nil
}

// expire drops the sessions whose time is over: the oldest ones.
func (t *stageSessions) expire(now time.Time) {
	for i := range t.tables {
		table := &t.tables[i]
		for len(table.sessions) > 0 && !now.Before(table.sessions[0].expires) {
			table.remove(0)
		}
	}
}

func (t *stageSessions) table(st *stageSession) *stageTable {
	if st.request.user == 0 {
		return &t.tables[0]
	}
	return &t.tables[1]
}

func (t *stageTable) index(id string) int {
	return slices.IndexFunc(t.sessions, func(st *stageSession) bool { return st.id == id })
}

func (t *stageTable) remove(at int) {
	t.bytes -= len(t.sessions[at].request.body)
	t.sessions = slices.Delete(t.sessions, at, at+1)
}

// copy returns what may be read without the lock: slices of a session are
// replaced, never changed in place.
func (st *stageSession) copy() *stageSession {
	c := *st
	return &c
}

func isEmptyObject(body jsontext.Value) bool { return len(body) <= len("{}") }
