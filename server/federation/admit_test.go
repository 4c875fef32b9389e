package federation

import (
	"context"
	"net/http"
	"testing"

	"hearth/state"
)

// What a join lacks is fetched within the memory for big jobs, and for few at a time.
// One that lacks nothing takes neither.
func TestJoinWithGap(t *testing.T) {
	l := newLobby(t)
	room := l.create(state.Creation{Preset: state.PresetPublic})
	made := l.template((*Server).makeJoin, room, "12")
	gap := map[string]string{"prev_events": `["$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"]`}
	held := 0
	l.server.config.Take = func(_ context.Context, bytes int64) (func(), error) {
		if bytes < inboxMemory {
			t.Errorf("%d bytes are taken", bytes)
		}
		held++
		return func() {
			if _, err := l.server.turns.fetch(); err != nil {
				t.Errorf("a second one: %v", err)
			}
			if _, err := l.server.turns.fetch(); err == nil {
				t.Error("one too many may fetch")
			}
		}, nil
	}
	if code, answer := l.send((*Server).sendJoinV2, l.made(made, gap), ""); code != http.StatusBadRequest || held != 1 {
		t.Errorf("a join with a gap: %d %s, memory is taken %d times", code, answer, held)
	}
	l.server.turns.fetching.TryAcquire(1)
	if code, answer := l.send((*Server).sendJoinV2, l.made(made, gap), ""); code != http.StatusTooManyRequests {
		t.Errorf("one too many: %d %s", code, answer)
	}
	if code, answer := l.send((*Server).sendJoinV2, l.made(made, nil), ""); code != http.StatusOK || held != 1 {
		t.Errorf("a join without: %d %s", code, answer)
	}
}
