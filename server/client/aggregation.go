package client

import (
	"slices"
	"strconv"

	"hearth/state/matrix"
	"hearth/store"
)

// appendRelations appends m.relations of an event's unsigned: what the server
// has gathered of the events that relate to it. State events have none, and redacted
// events none of their edits.
//
// Spec: CS Aggregations of child events.
func (f *formatter) appendRelations(b []byte, ev *store.StoredEvent, depth int) ([]byte, error) {
	if ev.IsState() || depth > maxBundleDepth {
		return b, nil
	}
	found, err := f.gather(ev)
	if err != nil || found.empty() {
		return b, err
	}
	bundle := []byte{}
	if bundle, err = f.appendReplacement(bundle, ev, found.edits, depth); err != nil {
		return nil, err
	}
	if depth == 0 {
		if bundle, err = f.appendThread(bundle, ev, &found); err != nil {
			return nil, err
		}
		if bundle, err = f.appendReferences(bundle, found.references); err != nil {
			return nil, err
		}
	}
	if len(bundle) == 0 {
		return b, nil
	}
	b = append(b, `,"m.relations":{`...)
	return append(append(b, bundle[1:]...), '}'), nil // each part begins with a comma
}

// maxBundleDepth is how deep bundles lie in each other: the newest event of a
// thread has its own edit.
const maxBundleDepth = 1

// Bounds of what is gathered of one event. Of more children the newest count.
const (
	maxEdits      = 100
	maxReferences = 100
	maxGathered   = 10_000 // children looked at
)

// gathered is the children of one event, by the type of relation, newest first.
type gathered struct {
	edits, references []store.EventNum
	thread            store.Thread
	hidden            uint64 // replies in the thread that ignored users sent
}

// gather looks at the children of an event.
func (f *formatter) gather(ev *store.StoredEvent) (g gathered, err error) {
	if !f.tx.HasRelations(f.room, ev.ID) {
		return g, nil
	}
	if g.thread, err = f.tx.Thread(f.room, ev.ID); err != nil {
		return g, err
	}
	looked := 0
	err = f.tx.RelationsBack(f.room, ev.ID, store.Place{}, func(rel store.Relation) (bool, error) {
		looked++
		switch {
		case rel.Type == "m.replace" && len(g.edits) < maxEdits:
			g.edits = append(g.edits, rel.Child)
		case rel.Type == "m.reference" && len(g.references) < maxReferences:
			g.references = append(g.references, rel.Child)
		case rel.Type == "m.thread" && len(f.ignored) > 0 && f.ignored.has(f.tx.UserID(rel.Sender)):
			g.hidden++
		}
		return looked < maxGathered, nil
	})
	return g, err
}

func (g *gathered) empty() bool {
	return len(g.edits) == 0 && len(g.references) == 0 && g.thread.Replies == 0
}

// appendReplacement appends the newest valid edit of an event, whole.
//
// Spec: CS Event replacements, Validity of replacement events; Server behaviour:
// "the most recent replacement event (as determined by origin_server_ts, falling
// back to event_id in the case of a tie)".
func (f *formatter) appendReplacement(b []byte, ev *store.StoredEvent, edits []store.EventNum, depth int) ([]byte, error) {
	last, err := f.newestEdit(ev, edits)
	if last == nil || err != nil {
		return b, err
	}
	return f.appendChild(append(b, `,"m.replace":`...), last, depth+1)
}

// newestEdit returns the newest valid edit of an event that the user may see, nil
// for none. "If the original event is redacted, any m.replace relationship should not
// be bundled with it", while its other children remain.
func (f *formatter) newestEdit(ev *store.StoredEvent, edits []store.EventNum) (last *store.StoredEvent, err error) {
	if ev.RedactedBy != 0 {
		return nil, nil
	}
	if relation, ok := ev.Relation(); ok && relation.Type == "m.replace" {
		return nil, nil // an edit cannot be edited
	}
	for _, num := range edits {
		edit, err := f.tx.Event(f.room, num)
		if err != nil {
			return nil, err
		}
		if !replaces(edit, ev) || last != nil && !later(edit, last) {
			continue
		}
		sees, err := f.shows(edit)
		if err != nil {
			return nil, err
		}
		if sees {
			last = edit
		}
	}
	return last, nil
}

// replaced says whether an event is no more what its sender wants to have said: it
// was edited, or is an edit that is not the newest valid one.
func (f *formatter) replaced(ev *store.StoredEvent) (bool, error) {
	original := ev
	if relation, ok := ev.Relation(); ok && relation.Type == "m.replace" {
		room, num, known := f.tx.EventByID(relation.Event)
		if !known || room != f.room {
			return false, nil
		}
		var err error
		if original, err = f.tx.Event(room, num); err != nil {
			return false, err
		}
	}
	found, err := f.gather(original)
	if err != nil {
		return false, err
	}
	last, err := f.newestEdit(original, found.edits)
	if last == nil || err != nil {
		return original != ev, err
	}
	return last.Num != ev.Num, nil
}

// replaces says whether an event may stand in another's place: same sender, same
// type, neither of them state, and a new content, which nobody sees who cannot
// decrypt it.
func replaces(edit, ev *store.StoredEvent) bool {
	return edit.SenderNum == ev.SenderNum && edit.Type == ev.Type && !edit.IsState() && edit.RedactedBy == 0 &&
		(edit.Type == "m.room.encrypted" || hasMember(edit.Content, "m.new_content"))
}

// later says whether a is newer than b.
func later(a, b *store.StoredEvent) bool {
	if a.OriginServerTS != b.OriginServerTS {
		return a.OriginServerTS > b.OriginServerTS
	}
	return a.ID > b.ID
}

// appendThread appends what is to be known of the thread that begins at an event.
//
// Spec: CS Threading, Server behaviour.
func (f *formatter) appendThread(b []byte, root *store.StoredEvent, g *gathered) ([]byte, error) {
	if g.thread.Replies <= g.hidden {
		return b, nil
	}
	latest, err := f.newestReply(root)
	if latest == nil || err != nil {
		return b, err
	}
	b = append(b, `,"m.thread":{"latest_event":`...)
	if b, err = f.appendChild(b, latest, 1); err != nil {
		return nil, err
	}
	b = append(b, `,"count":`...)
	b = strconv.AppendUint(b, g.thread.Replies-g.hidden, 10)
	b = append(b, `,"current_user_participated":`...)
	return append(strconv.AppendBool(b, f.participates(root, g.thread)), '}'), nil
}

// maxHiddenReplies bounds how many replies that the user does not get are passed
// over for one that he does.
const maxHiddenReplies = 100

// newestReply returns the newest event of a thread that the user gets, nil for
// none.
func (f *formatter) newestReply(root *store.StoredEvent) (latest *store.StoredEvent, err error) {
	passed := 0
	err = f.tx.RelationsBack(f.room, root.ID, store.Place{}, func(rel store.Relation) (bool, error) {
		if rel.Type != "m.thread" {
			return true, nil
		}
		ev, err := f.tx.Event(f.room, rel.Child)
		if err != nil {
			return false, err
		}
		shows, err := f.shows(ev)
		if shows {
			latest = ev
		}
		passed++
		return !shows && passed < maxHiddenReplies, err
	})
	return latest, err
}

// appendReferences appends the IDs of the events that refer to an event, as far as
// the user may see them.
//
// Spec: CS Reference relations.
func (f *formatter) appendReferences(b []byte, nums []store.EventNum) ([]byte, error) {
	var chunk []byte
	for _, num := range slices.Backward(nums) {
		ev, err := f.tx.Event(f.room, num)
		if err != nil {
			return nil, err
		}
		shows, err := f.shows(ev)
		if err != nil {
			return nil, err
		}
		if shows {
			chunk = append(chunk, `,{"event_id":`...)
			chunk = append(appendQuoted(chunk, string(ev.ID)), '}')
		}
	}
	if len(chunk) == 0 {
		return b, nil
	}
	b = append(b, `,"m.reference":{"chunk":[`...)
	return append(append(b, chunk[1:]...), "]}"...), nil
}

// appendChild appends a whole event.
func (f *formatter) appendChild(b []byte, ev *store.StoredEvent, depth int) ([]byte, error) {
	ev, err := f.shown(ev)
	if err != nil {
		return nil, err
	}
	b = f.appendBody(b, ev.Event)
	b = append(b, `,"unsigned":`...)
	b, err = f.appendUnsigned(b, ev, depth)
	return append(b, '}'), err
}

// related says whether an event's children are such as a filter asks for.
func related(tx *store.Tx, filter *RoomEventFilter, ev *store.StoredEvent) (bool, error) {
	if !filter.NeedsRelations() {
		return true, nil
	}
	var err error
	looked := 0
	matched := filter.MatchRelated(func(yield func(matrix.UserID, string) bool) {
		err = tx.RelationsBack(ev.RoomNum, ev.ID, store.Place{}, func(rel store.Relation) (bool, error) {
			looked++
			return yield(tx.UserID(rel.Sender), rel.Type) && looked < maxGathered, nil
		})
	})
	return matched, err
}
