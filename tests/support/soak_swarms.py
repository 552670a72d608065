def soak_swarm(number, work):
    raise NotImplementedError
