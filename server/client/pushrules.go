package client

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/push"
	"hearth/store"
)

// globalRules is all push rules, as clients get them.
type globalRules struct {
	Global *push.Ruleset `json:"global"`
}

// savedRules returns what the user has of push rules beyond the predefined
// ones. They are kept as account data of the type m.push_rules: so they have a
// place in the stream, and sync finds that they changed.
func savedRules(tx *store.Tx, user store.UserNum) (push.Saved, error) {
	var saved push.Saved
	d, err := tx.AccountData(user, 0, pushRulesType)
	if errors.Is(err, store.ErrNotFound) {
		return saved, nil
	}
	if err != nil {
		return saved, err
	}
	if err := json.Unmarshal(d.Content, &saved); err != nil {
		return saved, fmt.Errorf("push rules of user %d: %w", user, err)
	}
	return saved, nil
}

// pushRulesContent is the content of m.push_rules for a user.
func (s *Server) pushRulesContent(tx *store.Tx, who session) (jsontext.Value, error) {
	saved, err := savedRules(tx, who.num)
	if err != nil {
		return nil, err
	}
	return encodeJSON(globalRules{saved.Rules(who.user)})
}

// rules returns the rules that hold for a user.
func (s *Server) rules(who session) (rules *push.Ruleset, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		saved, err := savedRules(tx, who.num)
		rules = saved.Rules(who.user)
		return err
	})
	return rules, err
}

// changeRules changes what is saved of a user's rules.
func (s *Server) changeRules(w http.ResponseWriter, r *http.Request, who session, change func(*push.Saved) error) error {
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		saved, err := savedRules(tx, who.num)
		if err != nil {
			return err
		}
		if err := change(&saved); err != nil {
			return err
		}
		content, err := saved.Encode()
		if err != nil {
			return err
		}
		return tx.PutAccountData(who.num, store.AccountData{Type: pushRulesType, Content: content})
	})
	if err != nil {
		return ruleError(err)
	}
	return api.WriteEmpty(w)
}

// ruleError names the codes for what package push refuses.
func ruleError(err error) error {
	switch {
	case errors.Is(err, push.ErrUnknownRule):
		return api.ErrNotFound.Because("There is no such push rule")
	case errors.Is(err, push.ErrUnknownNeighbour):
		return api.ErrUnknown.WithStatus(http.StatusBadRequest).Because("%v", err)
	case errors.Is(err, push.ErrBadRule):
		return api.ErrInvalidParam.Because("%v", err)
	case errors.Is(err, push.ErrTooMany):
		return api.ErrUserLimit.Because("You have too many push rules")
	}
	return err
}

// pathRule reads kind and ID of the rule that a request is about. A kind that
// there is not is not found, as a rule would be.
func pathRule(r *http.Request) (push.Kind, string) {
	return push.Kind(r.PathValue("kind")), r.PathValue("ruleID")
}

// getPushRules answers GET /pushrules/.
func (s *Server) getPushRules(w http.ResponseWriter, _ *http.Request, who session) error {
	rules, err := s.rules(who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, globalRules{rules})
}

// getPushRulesGlobal answers GET /pushrules/global/.
func (s *Server) getPushRulesGlobal(w http.ResponseWriter, _ *http.Request, who session) error {
	rules, err := s.rules(who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, rules)
}

// rule returns the rule that a request is about.
func (s *Server) rule(r *http.Request, who session) (*push.Rule, error) {
	rules, err := s.rules(who)
	if err != nil {
		return nil, err
	}
	if rule := rules.Rule(pathRule(r)); rule != nil {
		return rule, nil
	}
	return nil, ruleError(push.ErrUnknownRule)
}

// getPushRule answers GET /pushrules/global/{kind}/{ruleID}.
func (s *Server) getPushRule(w http.ResponseWriter, r *http.Request, who session) error {
	rule, err := s.rule(r, who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, rule)
}

// setPushRule answers PUT /pushrules/global/{kind}/{ruleID}.
func (s *Server) setPushRule(w http.ResponseWriter, r *http.Request, who session) error {
	kind, id := pathRule(r)
	var body struct {
		Pattern    *string          `json:"pattern"`
		Conditions []push.Condition `json:"conditions"`
		Actions    []jsontext.Value `json:"actions"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	rule := push.Rule{ID: id, Pattern: body.Pattern, Conditions: body.Conditions, Actions: body.Actions}
	if !kind.Valid() {
		return api.ErrInvalidParam.Because("There is no kind of push rules %q", kind)
	}
	if err := rule.Check(kind); err != nil {
		return ruleError(err)
	}
	q := r.URL.Query()
	return s.changeRules(w, r, who, func(saved *push.Saved) error {
		return saved.Put(kind, rule, q.Get("before"), q.Get("after"))
	})
}

// deletePushRule answers DELETE /pushrules/global/{kind}/{ruleID}.
func (s *Server) deletePushRule(w http.ResponseWriter, r *http.Request, who session) error {
	kind, id := pathRule(r)
	return s.changeRules(w, r, who, func(saved *push.Saved) error { return saved.Delete(kind, id) })
}

// isPushRuleEnabled answers GET /pushrules/global/{kind}/{ruleID}/enabled.
func (s *Server) isPushRuleEnabled(w http.ResponseWriter, r *http.Request, who session) error {
	rule, err := s.rule(r, who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Enabled bool `json:"enabled"`
	}{rule.Enabled})
}

// setPushRuleEnabled answers PUT /pushrules/global/{kind}/{ruleID}/enabled.
func (s *Server) setPushRuleEnabled(w http.ResponseWriter, r *http.Request, who session) error {
	kind, id := pathRule(r)
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	if body.Enabled == nil {
		return api.MissingParam("enabled")
	}
	return s.changeRules(w, r, who, func(saved *push.Saved) error { return saved.SetEnabled(kind, id, *body.Enabled) })
}

// getPushRuleActions answers GET /pushrules/global/{kind}/{ruleID}/actions.
func (s *Server) getPushRuleActions(w http.ResponseWriter, r *http.Request, who session) error {
	rule, err := s.rule(r, who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Actions []jsontext.Value `json:"actions"`
	}{rule.Actions})
}

// setPushRuleActions answers PUT /pushrules/global/{kind}/{ruleID}/actions.
func (s *Server) setPushRuleActions(w http.ResponseWriter, r *http.Request, who session) error {
	kind, id := pathRule(r)
	var body struct {
		Actions []jsontext.Value `json:"actions"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	if err := push.CheckActions(body.Actions); err != nil {
		return ruleError(err)
	}
	return s.changeRules(w, r, who, func(saved *push.Saved) error { return saved.SetActions(kind, id, body.Actions) })
}
