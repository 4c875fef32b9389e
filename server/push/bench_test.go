package push

import (
	"testing"

	"hearth/state/matrix"
)

// BenchmarkMatch asks the predefined rules about one message as people write
// them: with a formatted body, mentions and a relation.
func BenchmarkMatch(b *testing.B) {
	ev := &matrix.Event{
		Type: "m.room.message", Sender: "@bob:hearth.test", Room: "!room", ID: "$event",
		Content: []byte(`{"body":"Dinner is at eight, will you bring the salad, or shall I buy one on my way home?",` +
			`"format":"org.matrix.custom.html","formatted_body":"Dinner is at <b>eight</b>, will you bring the salad, or shall I buy one on my way home?",` +
			`"m.mentions":{"user_ids":["@carol:hearth.test"]},"m.relates_to":{"event_id":"$root","is_falling_back":true,"m.in_reply_to":{"event_id":"$other"},"rel_type":"m.thread"},` +
			`"msgtype":"m.text"}`),
	}
	context := &Context{User: "@alice:hearth.test", Members: 5, DisplayName: "Alice"}
	rules := new(Saved).Rules(context.User)
	b.ReportAllocs()
	for b.Loop() {
		if rules.Match(ev, context) == nil {
			b.Fatal("no rule matches")
		}
	}
}
