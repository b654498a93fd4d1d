"""Which rewards a refit can give: win rates over the responses that are paired, whoever drew them."""

from __future__ import annotations

from trainers.algorithm import Algorithm, Player


def check_win_rates(algorithm: Algorithm) -> None:
    """Refuse rewards that the win rates of a refit's own responses are not.

    On the refit schedule nothing is sampled from an opponent: a response's reward is its mean preference over the
    prompt's other responses, which is its win rate against whoever drew these.

    Raises:
        ValueError: an opponent is another policy than the player, responses are drawn at another temperature than
            opponents play at, or the algorithm makes something else of a comparison than its preference.
    """
    name, drawn = algorithm.name, {algorithm.player.value}
    if algorithm.player is Player.POLICY:
        drawn.add("previous")
    for phase in algorithm.phases:
        strangers = [opponent for opponent in phase.opponents if opponent not in drawn]
        if strangers:
            raise ValueError(
                f"{name}: a phase earns rewards against {strangers[0]!r}, and on the refit schedule a response's win "
                f"rate is that over the responses it is paired among, which are those of {algorithm.player.value!r}; "
                f"name one of {', '.join(sorted(drawn))} as the opponent, or use the stream schedule"
            )
        if phase.opponents and algorithm.temperature is not None:
            raise ValueError(
                f"{name}: responses are drawn at a temperature of its own ({algorithm.temperature}), and on the refit "
                "schedule they are the opponents too, who play at sampling.temperature; leave the algorithm's out, or "
                "use the stream schedule"
            )
        if phase.opponents and type(algorithm).reward is not Algorithm.reward:
            raise ValueError(
                f"{name}: it has a `reward` of each comparison, and on the refit schedule win rates are means of "
                "preferences, of which that cannot be taken; leave `reward` out, or use the stream schedule"
            )
        drawn.discard(phase.writes)
