"""A module of Tryton: events for the webhook gateway, written in the transaction of the change that they tell of."""


def register() -> None:
    from trytond.pool import Pool

    from . import outbox, published

    models = (outbox.Outbox, published.Appointment, published.Lab)
    Pool.register(*models, module="health_webhooks", type_="model")
