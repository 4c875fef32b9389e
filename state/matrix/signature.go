package matrix

import (
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Signed returns the event with a signature of server added, as one signs the event
// of another server: an invite, or a join that a user of server authorises.
func (e *Event) Signed(server ServerName, key SigningKey) (*Event, error) {
	pdu, err := SignEvent(e.Version, e.pdu, server, key)
	if err != nil {
		return nil, err
	}
	return Parse(e.Version, pdu)
}

// SignaturesOf returns the signatures of a server that the event has, by the key's
// ID; nobody has checked them. What is no text is left out.
func (e *Event) SignaturesOf(server ServerName) map[string]string {
	var pdu struct {
		Signatures map[string]jsontext.Value `json:"signatures"`
	}
	if json.Unmarshal(e.pdu, &pdu, jsontext.AllowDuplicateNames(true)) != nil {
		return nil
	}
	var keys map[string]jsontext.Value
	if json.Unmarshal(pdu.Signatures[string(server)], &keys) != nil {
		return nil
	}
	signatures := make(map[string]string, len(keys))
	for id, value := range keys {
		var text string
		if json.Unmarshal(value, &text) == nil {
			signatures[id] = text
		}
	}
	return signatures
}

// WithSignatures returns the event with signatures of server added, by the ID of
// their key; of the same key they replace the one that it has. Nobody has checked
// them. The error wraps ErrTooLarge where the event has no room for them.
func (e *Event) WithSignatures(server ServerName, signatures map[string]string) (*Event, error) {
	pdu := e.pdu
	for _, id := range slices.Sorted(maps.Keys(signatures)) {
		d, err := readObject(pdu, numbersOf(e.Version))
		if err != nil {
			return nil, fmt.Errorf("signature on %s: %w", e.ID, err)
		}
		pdu = d.appendSignature(make([]byte, 0, len(pdu)+256), string(server), id, signatures[id])
		d.free()
	}
	return Parse(e.Version, pdu)
}
